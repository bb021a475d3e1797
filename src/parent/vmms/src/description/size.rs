//! Sizes as people write them.

/// Bytes of `text`: a number with `M`, `G` or `T` after it.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<u64, String> {
    const FORM: &str = "write a number and M, G or T, such as \"512M\"";
    let (number, shift) = match text.as_bytes() {
        [.., b'M'] => (&text[..text.len() - 1], 20),
        [.., b'G'] => (&text[..text.len() - 1], 30),
        [.., b'T'] => (&text[..text.len() - 1], 40),
        _ => return Err(FORM.to_owned()),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FORM.to_owned());
    }
    let number: Option<u64> = number.parse().ok();
    number
        .filter(|number| *number <= u64::MAX >> shift)
        .map(|number| number << shift)
        .ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_two() {
        assert_eq!(parse("512M"), Ok(512 << 20));
        assert_eq!(parse("3G"), Ok(3 << 30));
        assert_eq!(parse("1T"), Ok(1 << 40));
        for wrong in [
            "", "M", "512", "512K", "-1M", "+1M", "1.5G", " 1M", "1MB", "é",
        ] {
            assert!(parse(wrong).unwrap_err().contains("such as"), "{wrong}");
        }
        assert!(parse("18446744073709551615M").is_err());
    }
}

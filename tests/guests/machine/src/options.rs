//! The words that the loader passes to an image.

use uefi::proto::loaded_image::LoadedImage;

/// The load options of this image as text, in `text`. Empty where there are none, or where they hold anything but the
/// printable characters of ASCII.
pub fn load_options(text: &mut [u8; 512]) -> &str {
    let Ok(image) = uefi::boot::open_protocol_exclusive::<LoadedImage>(uefi::boot::image_handle())
    else {
        return "";
    };
    let Ok(words) = image.load_options_as_cstr16() else {
        return "";
    };
    let mut len = 0;
    for (slot, unit) in text.iter_mut().zip(words.to_u16_slice()) {
        match u8::try_from(*unit) {
            Ok(byte @ b' '..=b'~') => *slot = byte,
            _ => return "",
        }
        len += 1;
    }
    core::str::from_utf8(&text[..len]).unwrap_or("")
}

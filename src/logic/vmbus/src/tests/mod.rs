mod backend;
mod conversations;
mod devices;
mod faults;
mod hostile;
mod saved;
mod world;

/// Few cases for every day; `PROPTEST_CASES` asks for more.
fn cases(few: u32) -> proptest::test_runner::Config {
    let default = proptest::test_runner::Config::default();
    let has_wish = std::env::var_os("PROPTEST_CASES").is_some();
    proptest::test_runner::Config {
        cases: if has_wish { default.cases } else { few },
        max_shrink_iters: 300,
        ..default
    }
}

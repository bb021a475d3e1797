//! Points at which a test has a program stand still, to kill it there.

use std::ffi::OsString;
use std::io::{Write, stderr};
use std::sync::OnceLock;
use std::time::Duration;

/// The variable of the environment that names one. The daemon hands it on to its workers.
pub const STOP_VARIABLE: &str = "VERDIGRIS_STOP_AT";

/// The point that the environment names.
pub fn stop_wanted() -> Option<&'static OsString> {
    static WANTED: OnceLock<Option<OsString>> = OnceLock::new();
    WANTED
        .get_or_init(|| std::env::var_os(STOP_VARIABLE))
        .as_ref()
}

/// Says so on standard error and stands still for good, all locks held, where point `name` is the one that the environment
/// names. Nobody but root has a say in the environment of daemon and workers.
pub fn stop_point(name: &str) {
    if stop_wanted().is_none_or(|wanted| wanted != name) {
        return;
    }
    // Nobody reads it: the test fails by its own clock.
    let _ = writeln!(stderr(), "stopped at {name}");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

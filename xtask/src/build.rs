//! The hypervisor, the loader and the test parent: built for bare targets, always in the release profile, since
//! the debug profile's code is several times too slow between an exit and the next entry.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::setup;
use crate::workspace::Workspace;

/// The images that go onto a disk.
#[derive(Debug, Clone)]
pub struct Images {
    /// The UEFI application that launches the hypervisor.
    pub loader: PathBuf,
    /// The hypervisor, an ELF file.
    pub hypervisor: PathBuf,
}

/// What a build may differ in.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Features of the hypervisor's crate; a build with any has a target directory of its own.
    pub features: Vec<String>,
}

/// Position and code model of the hypervisor: linked at a fixed address in the upper half, as `linker.ld` says.
const HYPERVISOR_FLAGS: &str =
    "-Ccode-model=kernel -Crelocation-model=static -Cforce-frame-pointers=yes";

/// Builds the hypervisor and the loader.
pub fn build(workspace: &Workspace, options: &Options) -> Result<Images> {
    setup::rust::obtain_targets()?;
    Ok(Images {
        hypervisor: hypervisor(workspace, options)?,
        loader: uefi_program(workspace, "boot")?,
    })
}

/// Where the hypervisor lies that was built with `features`, whether it was built yet or not.
pub fn hypervisor_image(workspace: &Workspace, features: &[String]) -> PathBuf {
    hypervisor_target(workspace, features).join("x86_64-unknown-none/release/hypervisor")
}

fn hypervisor_target(workspace: &Workspace, features: &[String]) -> PathBuf {
    if features.is_empty() {
        workspace.target().to_owned()
    } else {
        workspace
            .target()
            .join(format!("with-{}", features.join("-")))
    }
}

fn hypervisor(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    let target = hypervisor_target(workspace, &options.features);
    let target_text = target
        .to_str()
        .context("the target directory's path is not UTF-8")?;
    let features = options.features.join(",");
    workspace.cargo_build(
        &[
            "--package",
            "hypervisor",
            "--target",
            "x86_64-unknown-none",
            "--features",
            &features,
            "--target-dir",
            target_text,
        ],
        &[(
            "CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS",
            HYPERVISOR_FLAGS,
        )],
    )?;
    built(hypervisor_image(workspace, &options.features))
}

/// Builds the test parent, an EFI program that checks the hypervisor from inside.
pub fn test_parent(workspace: &Workspace) -> Result<PathBuf> {
    setup::rust::obtain_targets()?;
    uefi_program(workspace, "test-parent")
}

/// Builds the parent that makes children.
pub fn children(workspace: &Workspace) -> Result<PathBuf> {
    setup::rust::obtain_targets()?;
    uefi_program(workspace, "children")
}

/// Builds the program that switches AMD-V off before the loader runs.
pub fn locker(workspace: &Workspace) -> Result<PathBuf> {
    setup::rust::obtain_targets()?;
    uefi_program(workspace, "locker")
}

/// Builds `vgstat`, the parent's view of the counters, as a program that needs no library of the system it runs on.
pub fn vgstat(workspace: &Workspace) -> Result<PathBuf> {
    parent_program(workspace, "vgstat")
}

/// The programs of the parent that make children: the daemon, its command, and the worker.
const PARENT_PROGRAMS: [&str; 3] = ["vmms", "vmctl", "vmwp"];

/// Builds the programs that make children, in the same way.
pub fn parent_programs(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    PARENT_PROGRAMS
        .iter()
        .map(|package| parent_program(workspace, package))
        .collect()
}

/// Builds the worker that attacks its parent, for a test.
pub fn hostile_worker(workspace: &Workspace) -> Result<PathBuf> {
    parent_program(workspace, "hostile-worker")
}

/// Builds the child that writes garbage, a kernel of its own. The hypervisor's code model serves at 4 MiB as well:
/// addresses are sign-extended from 32 bits.
pub fn garbage_child(workspace: &Workspace) -> Result<PathBuf> {
    setup::rust::obtain_targets()?;
    workspace.cargo_build(
        &["--package", "garbage", "--target", "x86_64-unknown-none"],
        &[],
    )?;
    built(
        workspace
            .target()
            .join("x86_64-unknown-none/release/garbage"),
    )
}

fn parent_program(workspace: &Workspace, package: &str) -> Result<PathBuf> {
    const HOST: &str = "x86_64-unknown-linux-gnu";
    workspace.cargo_build(
        &["--package", package, "--target", HOST],
        &[(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-Ctarget-feature=+crt-static -Cstrip=symbols",
        )],
    )?;
    built(workspace.target().join(HOST).join("release").join(package))
}

fn uefi_program(workspace: &Workspace, package: &str) -> Result<PathBuf> {
    workspace.cargo_build(
        &["--package", package, "--target", "x86_64-unknown-uefi"],
        &[],
    )?;
    built(
        workspace
            .target()
            .join(format!("x86_64-unknown-uefi/release/{package}.efi")),
    )
}

fn built(image: PathBuf) -> Result<PathBuf> {
    ensure!(image.exists(), "the build did not make {}", image.display());
    Ok(image)
}

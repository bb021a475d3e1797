//! The direction of dependencies: arrows point down only.
//!
//! `src/abi` knows no crate of ours but its own kind; `src/logic` knows `abi` and itself; `src/hv` and `boot` stand
//! side by side above both, and so do the parent's programs in `src/parent`, which may use one another. Crates that touch
//! hardware stay in `src/hv` and `boot`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// Where a package stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Abi,
    Logic,
    Parent,
    Top,
}

/// Crates that only the top layer may use.
const HARDWARE: [&str; 6] = [
    "x86_64",
    "acpi",
    "spin",
    "uart_16550",
    "linked_list_allocator",
    "uefi",
];

/// Checks every manifest below `src` and `boot`, the host's own tools excepted.
pub fn check(workspace: &Workspace) -> Result<()> {
    println!("== layers");
    let packages = packages(workspace.root())?;
    let layers: BTreeMap<&str, Layer> = packages
        .iter()
        .map(|(name, layer, _)| (&**name, *layer))
        .collect();
    let mut complaints = Vec::new();
    for (name, layer, dependencies) in &packages {
        for dependency in dependencies {
            if let Some(complaint) =
                complaint(*layer, dependency, layers.get(&**dependency).copied())
            {
                complaints.push(format!("{name}: {complaint}"));
            }
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

fn complaint(layer: Layer, name: &str, target: Option<Layer>) -> Option<String> {
    let is_allowed = match (layer, target) {
        (Layer::Abi, Some(Layer::Abi)) => true,
        (Layer::Abi, None) => name == "bitflags",
        (Layer::Logic, Some(Layer::Abi | Layer::Logic)) => true,
        (Layer::Logic, None) => !HARDWARE.contains(&name) && name != "log",
        (Layer::Parent, Some(Layer::Abi | Layer::Logic | Layer::Parent)) => true,
        (Layer::Parent, None) => !HARDWARE.contains(&name),
        (Layer::Top, Some(Layer::Abi | Layer::Logic) | None) => true,
        (_, Some(_)) => false,
    };
    (!is_allowed).then(|| format!("must not depend on `{name}`"))
}

type Package = (String, Layer, Vec<String>);

fn packages(root: &Path) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for (directory, layer) in [
        ("src/abi", Layer::Abi),
        ("src/logic", Layer::Logic),
        ("src/parent", Layer::Parent),
    ] {
        for entry in fs::read_dir(root.join(directory))? {
            packages.push(package(&entry?.path(), layer)?);
        }
    }
    for directory in ["src/hv", "boot"] {
        packages.push(package(&root.join(directory), Layer::Top)?);
    }
    Ok(packages)
}

fn package(directory: &Path, layer: Layer) -> Result<Package> {
    let file = directory.join("Cargo.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let manifest: toml::Table = toml::from_str(&text)?;
    let name = manifest["package"]["name"]
        .as_str()
        .context("a package has a name")?;
    let dependencies = manifest
        .get("dependencies")
        .and_then(toml::Value::as_table)
        .map(|table| table.keys().cloned().collect())
        .unwrap_or_default();
    Ok((name.to_owned(), layer, dependencies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_point_down() {
        assert!(complaint(Layer::Logic, "addr", Some(Layer::Abi)).is_none());
        assert!(complaint(Layer::Abi, "paging", Some(Layer::Logic)).is_some());
        assert!(complaint(Layer::Top, "hypervisor", Some(Layer::Top)).is_some());
        assert!(complaint(Layer::Parent, "disk", Some(Layer::Parent)).is_none());
        assert!(complaint(Layer::Parent, "hypervisor", Some(Layer::Top)).is_some());
        assert!(complaint(Layer::Top, "disk", Some(Layer::Parent)).is_some());
    }

    #[test]
    fn hardware_stays_on_top() {
        assert!(complaint(Layer::Logic, "spin", None).is_some());
        assert!(complaint(Layer::Top, "spin", None).is_none());
        assert!(complaint(Layer::Abi, "log", None).is_some());
    }
}

//! All children: those that are described, and those that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use tlfs::call::PARTITION_SELF;
use vmms_proto::{ChildInfo, ChildState, Reply, Request};

use crate::child::{Child, Goal, Machine, described, end_worker};
use crate::control::ControlError;
use crate::description::{self, Description};
use crate::life::Event;
use crate::log;
use crate::memory::release;
use crate::partition::{unmake, withdraw_all};
use crate::record::{Record, Waiting};

/// The children of one machine.
pub struct Inventory {
    machine: Arc<Machine>,
    children: Mutex<BTreeMap<String, Arc<Child>>>,
}

type Children = BTreeMap<String, Arc<Child>>;

impl Inventory {
    /// Finds the children that a daemon before this one made, and takes apart what belongs to nobody.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    pub fn new(machine: Machine) -> Result<Self, ControlError> {
        let machine = Arc::new(machine);
        let records = Record::all(&machine.paths.records());
        clear(&machine, &records)?;
        let mut children = Children::new();
        for record in records {
            let name = record.description.name.clone();
            match Child::adopt(&machine, record) {
                Ok(child) => drop(children.insert(name, Arc::new(child))),
                Err(error) => crate::say!("vmms: {name}: {error}"),
            }
        }
        for waiting in Waiting::all(&machine.paths.waiting()) {
            let name = waiting.description.name.clone();
            if children.contains_key(&name) {
                continue;
            }
            match Child::wait_again(&machine, waiting) {
                Ok(child) => drop(children.insert(name, Arc::new(child))),
                Err(error) => crate::say!("vmms: {name}: {error}"),
            }
        }
        Ok(Self {
            machine,
            children: Mutex::new(children),
        })
    }

    /// Starts the children that start with the system, once for each start of the system.
    pub fn autostart(self: &Arc<Self>) {
        let mark = self.machine.paths.run.join("autostarted");
        if mark.exists() {
            return;
        }
        if let Err(error) = fs::write(&mark, "") {
            crate::say!("vmms: {}: {error}", mark.display());
        }
        for (name, found) in description::all(&self.machine.paths.children) {
            if !found.is_ok_and(|description| description.autostart) {
                continue;
            }
            let this = Arc::clone(self);
            // All at once: the slowest disk does not keep the others.
            std::thread::spawn(move || {
                if let Reply::Error(error) = this.answer(&Request::Start { name: name.clone() }) {
                    crate::say!("vmms: {name}: {error}");
                }
            });
        }
    }

    /// Carries out a request; [`Request::Console`] is answered by [`Inventory::console`].
    pub fn answer(&self, request: &Request) -> Reply {
        let result = match request {
            Request::List => {
                let mut all = self.list();
                // All of these together might be too long for a line; `show` has them.
                let crashes = all.iter_mut().filter_map(|info| info.last_crash.as_mut());
                crashes.for_each(|crash| crash.text = None);
                return Reply::Children(all);
            }
            Request::Show { name } => return self.show(name),
            Request::Create { text } => self.create(text),
            Request::Delete { name } => self.delete(name),
            Request::Start { name } => self.start(name),
            Request::Stop { name, seconds } => self.stop(name, *seconds),
            Request::Kill { name } => self.wish(name, Event::Kill, Goal::Stopped),
            Request::Pause { name } => self.wish(name, Event::Pause, Goal::Paused),
            Request::Resume { name } => self.wish(name, Event::Resume, Goal::Running),
            Request::ResizeDisk { name, lun } => {
                self.existing(name).and_then(|child| child.resize(*lun))
            }
            Request::Logs { name, lines } => return self.logs(name, *lines),
            Request::Console { .. } => Err("a console is a connection of its own".to_owned()),
        };
        match result {
            Ok(()) => Reply::Done,
            Err(text) => Reply::Error(text),
        }
    }

    /// Attaches a connection to the console of child `name`, after it was told so.
    ///
    /// # Errors
    /// When it has none.
    pub fn console(&self, name: &str, mut stream: UnixStream) -> Result<(), String> {
        let child = self.existing(name)?;
        if child.is_stopped() {
            return Err(format!("{name} is stopped; `vmctl start {name}` starts it"));
        }
        let told = vmms_proto::send(&mut stream, &Reply::Console).and_then(|()| stream.flush());
        told.map_err(|error| error.to_string())?;
        child.view(stream);
        Ok(())
    }

    /// Switches all children off at once.
    pub fn kill_all(&self) {
        let children: Vec<_> = self.children().values().cloned().collect();
        std::thread::scope(|scope| {
            for child in &children {
                // What cannot be taken apart is told by its log.
                scope.spawn(|| drop(child.wish(Event::Kill, Goal::Stopped)));
            }
        });
    }

    /// Takes back what the parent gave the hypervisor for itself. Whether nothing of this daemon's memory is the
    /// hypervisor's any more, so that its pins may end.
    pub fn give_up(&self) -> bool {
        let calls = &self.machine.calls;
        let own = self.machine.own_pool.lock();
        let own = own.unwrap_or_else(|error| error.into_inner());
        let is_alone = calls.list().is_ok_and(|held| held.is_empty());
        let back = withdraw_all(calls, PARTITION_SELF).unwrap_or_default();
        is_alone && back.len() as u64 == own.frames()
    }

    fn children(&self) -> MutexGuard<'_, Children> {
        self.children
            .lock()
            .unwrap_or_else(|error| error.into_inner())
    }

    fn list(&self) -> Vec<ChildInfo> {
        let mut all: BTreeMap<String, ChildInfo> = BTreeMap::new();
        for (name, found) in description::all(&self.machine.paths.children) {
            let info = match found {
                Ok(description) => described(&name, &description),
                Err(error) => ChildInfo {
                    name: name.clone(),
                    error: Some(error.to_string()),
                    ..ChildInfo::default()
                },
            };
            all.insert(name, info);
        }
        for (name, child) in &*self.children() {
            let info = child.info();
            match all.get_mut(name) {
                // What it will be the next time, and what became of it the last.
                Some(described) if info.state == ChildState::Stopped => {
                    described.starts = info.starts;
                    described.last_end = info.last_end;
                    described.crashes = info.crashes;
                    described.last_crash = info.last_crash;
                }
                _ => drop(all.insert(name.clone(), info)),
            }
        }
        all.into_values().collect()
    }

    fn show(&self, name: &str) -> Reply {
        let mut all = self.list();
        all.retain(|info| info.name == name);
        if all.is_empty() {
            return match self.load(name) {
                Err(error) => Reply::Error(error),
                Ok(_) => Reply::Error(format!("{name} has just appeared; try again")),
            };
        }
        Reply::Children(all)
    }

    fn load(&self, name: &str) -> Result<Description, String> {
        description::load(&self.machine.paths.children, name).map_err(|error| error.to_string())
    }

    fn create(&self, text: &str) -> Result<(), String> {
        let description = Description::parse(text).map_err(|error| error.to_string())?;
        let directory = &self.machine.paths.children;
        let path = directory.join(format!("{}.toml", description.name));
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        fs::create_dir_all(directory).map_err(failed)?;
        match fs::File::create_new(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(format!(
                "{} exists; edit it, or delete the child first",
                path.display()
            )),
            Err(error) => Err(failed(error)),
            Ok(mut file) => file.write_all(text.as_bytes()).map_err(failed),
        }
    }

    fn delete(&self, name: &str) -> Result<(), String> {
        self.load(name).map(drop).or_else(|error| {
            // A description that is wrong can be deleted as well.
            let path = self.machine.paths.children.join(format!("{name}.toml"));
            let is_there = description::check_name(name).is_ok() && path.exists();
            is_there.then_some(()).ok_or(error)
        })?;
        let mut children = self.children();
        // Whoever starts it holds it, from under this lock to the end of the start.
        let is_used = |child: &Arc<Child>| !child.is_stopped() || Arc::strong_count(child) > 1;
        if children.get(name).is_some_and(is_used) {
            return Err(format!(
                "{name} is not stopped; `vmctl stop {name}` stops it"
            ));
        }
        let path = self.machine.paths.children.join(format!("{name}.toml"));
        fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        // Its thread ends with the last who knows it.
        children.remove(name);
        Ok(())
    }

    fn start(&self, name: &str) -> Result<(), String> {
        let description = self.load(name)?;
        let child = {
            let mut children = self.children();
            match children.get(name) {
                Some(child) => Arc::clone(child),
                None => {
                    let child = Arc::new(Child::new(&self.machine, name)?);
                    children.insert(name.to_owned(), Arc::clone(&child));
                    child
                }
            }
        };
        child.start(description)
    }

    fn stop(&self, name: &str, seconds: Option<u32>) -> Result<(), String> {
        let usual = || self.load(name).map_or(60, |child| child.stop_seconds);
        let seconds = seconds.unwrap_or_else(usual);
        self.wish(name, Event::Stop(seconds), Goal::Stopped)
    }

    fn wish(&self, name: &str, event: Event, goal: Goal) -> Result<(), String> {
        match self.existing(name) {
            Ok(child) => child.wish(event, goal),
            // One that was never started is stopped.
            Err(_) if goal == Goal::Stopped && self.load(name).is_ok() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A child that was started at some time.
    fn existing(&self, name: &str) -> Result<Arc<Child>, String> {
        if let Some(child) = self.children().get(name) {
            return Ok(Arc::clone(child));
        }
        self.load(name)?;
        Err(format!("{name} is stopped; `vmctl start {name}` starts it"))
    }

    fn logs(&self, name: &str, lines: u32) -> Reply {
        if let Err(error) = description::check_name(name) {
            return Reply::Error(error.to_string());
        }
        match log::last(&self.machine.paths.log, name, lines as usize) {
            Ok(text) if text.is_empty() => match self.load(name) {
                Ok(_) => Reply::Text(text),
                Err(error) => Reply::Error(error),
            },
            Ok(text) => Reply::Text(text),
            Err(error) => Reply::Error(format!("the log of {name}: {error}")),
        }
    }
}

/// Takes apart partitions that have no record, and has the holder close what belongs to no record.
fn clear(machine: &Machine, records: &[Record]) -> Result<(), ControlError> {
    let owners = strangers(&machine.holder.names().unwrap_or_default(), records);
    // First: a worker that lives has its slot's rings mapped, which the next child gets.
    for owner in &owners {
        if let Err(why) = end_worker(machine, owner) {
            crate::say!("vmms: {owner}: {why}");
        }
    }
    let mut is_clear = true;
    for held in machine.calls.list()? {
        if records.iter().any(|record| record.tag == held.tag) {
            continue;
        }
        crate::say!(
            "vmms: partition {:#x} belongs to nobody and is taken apart",
            held.partition.get()
        );
        match unmake(&machine.calls, held.partition) {
            Ok(_) => {}
            Err(ControlError::Broken(error)) => return Err(error.into()),
            Err(error) => {
                crate::say!("vmms: it is still there: {error}");
                is_clear = false;
            }
        }
    }
    if !is_clear {
        // Nobody knows whose memory it has: all of it stays pinned.
        return Ok(());
    }
    for owner in owners {
        if let Err(error) = release(&machine.holder, &owner) {
            crate::say!("vmms: {owner}: {error}");
        }
    }
    Ok(())
}

/// Children of which the holder has something, and that have no record.
fn strangers(names: &[String], records: &[Record]) -> BTreeSet<String> {
    let owners = names.iter().filter_map(|name| {
        let mut parts = name.split('/');
        (parts.next() == Some("child"))
            .then(|| parts.next())
            .flatten()
    });
    let has_record = |owner: &str| records.iter().any(|one| one.description.name == owner);
    let strange = owners.filter(|owner| !has_record(owner));
    strange.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Crashes;

    #[test]
    fn strangers_are_those_without_a_record() {
        let text = "name = \"web\"\nmemory = \"2M\"\nkernel = \"/k\"\n";
        let record = Record {
            tag: 1,
            slot: 0,
            description: Description::parse(text).unwrap(),
            starts: 1,
            crashes: Crashes::default(),
            worker: None,
        };
        let names = [
            "child/old/ram",
            "child/old/worker",
            "child/web/ram",
            "slot/0",
            "control",
        ];
        let names = names.map(str::to_owned);
        let strange: Vec<_> = strangers(&names, &[record]).into_iter().collect();
        assert_eq!(strange, ["old"]);
    }
}

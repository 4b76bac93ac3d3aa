//! The cluster under test: two dispatchers, three compute nodes, two watchers, an agent, ZooKeeper and MongoDB, each a
//! process of its own; and what is done to them, with a proof that it happened.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Arc, Mutex as StdMutex},
    time::Duration,
};

use servers::{Mongo, ZooKeeper};
use testkit::{
    process::{self, Output, Process, Recipe, Seen},
    servers::{mongo_options, zookeeper_options},
};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Settings,
    plan::{Fault, How, Victim},
    watch::Watch,
};

/// For what takes a moment, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Within this a role must end when it is asked to.
const STOP: Duration = Duration::from_secs(25);
const SIGTERM: u32 = 15;
/// What a supervisor waits before it starts a role again that ended by itself, as systemd does.
const RESTART: Duration = Duration::from_millis(500);
/// More than the small disk takes.
const SMALL_DISK_BYTES: usize = 16 << 20;
/// Between two looks at processes.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Yard {
    pub(crate) settings: Settings,
    /// Where all files of the run are.
    pub(crate) files: PathBuf,
    /// Connection strings.
    pub(crate) zookeeper: String,
    pub(crate) mongodb: String,
    /// `HOST:PORT` of both gateways.
    pub(crate) gateways: Vec<String>,
    stores: BTreeMap<Victim, Mutex<Server>>,
    roles: BTreeMap<Victim, Mutex<Process>>,
    /// What the killed had started.
    remains: StdMutex<Vec<Seen>>,
    /// What must not be.
    violations: StdMutex<Vec<String>>,
    /// Roles that ended though nobody asked them to, with the last that they said.
    ended: StdMutex<Vec<String>>,
}

/// A store with its process.
enum Server {
    ZooKeeper(ZooKeeper),
    Mongo(Mongo),
}

impl Server {
    fn pid(&self) -> u32 {
        match self {
            Self::ZooKeeper(server) => server.pid(),
            Self::Mongo(server) => server.pid(),
        }
    }

    async fn end(&mut self, how: How) {
        match (self, how) {
            (Self::ZooKeeper(server), How::Kill) => server.kill().await,
            (Self::ZooKeeper(server), _) => server.stop().await,
            (Self::Mongo(server), How::Kill) => server.kill().await,
            (Self::Mongo(server), _) => server.stop().await,
        }
    }

    fn signal(&mut self, freeze: bool) {
        match (self, freeze) {
            (Self::ZooKeeper(server), true) => server.freeze(),
            (Self::ZooKeeper(server), false) => server.thaw(),
            (Self::Mongo(server), true) => server.freeze(),
            (Self::Mongo(server), false) => server.thaw(),
        }
    }

    async fn restart(&mut self) -> Result<(), servers::Error> {
        match self {
            Self::ZooKeeper(server) => server.restart().await,
            Self::Mongo(server) => server.restart().await,
        }
    }
}

impl Yard {
    /// Starts the stores and the roles.
    pub(crate) async fn start(settings: Settings, files: &Path) -> Arc<Self> {
        let (zookeeper, mongo) = tokio::join!(
            ZooKeeper::start(zookeeper_options()),
            Mongo::start(mongo_options())
        );
        let (zookeeper, mongo) = (zookeeper.unwrap(), mongo.unwrap());
        let port = || servers::free_port().unwrap();
        let mut yard = Self {
            settings,
            files: files.to_path_buf(),
            zookeeper: format!("{}/sawmill", zookeeper.address()),
            mongodb: mongo.uri_of("sawmill"),
            gateways: Vec::new(),
            stores: BTreeMap::new(),
            roles: BTreeMap::new(),
            remains: StdMutex::default(),
            violations: StdMutex::default(),
            ended: StdMutex::default(),
        };
        yard.stores
            .insert(Victim::ZooKeeper, Mutex::new(Server::ZooKeeper(zookeeper)));
        yard.stores
            .insert(Victim::Mongo, Mutex::new(Server::Mongo(mongo)));
        for number in [1, 2] {
            let host = yard.host(Victim::Dispatcher(number));
            yard.gateways.push(format!("{host}:{}", port()));
        }
        for folder in ["log", "lines"] {
            std::fs::create_dir(yard.files.join(folder)).unwrap();
        }
        let _ = yard.recipe().arg("init").output(SOON).await.code(0);
        for victim in Victim::ROLES {
            let mut role = yard.role(victim).start();
            if victim != Victim::Agent {
                let line = format!("{} started", victim.kind());
                role.wait_for_line(&line, SOON).await;
            }
            yard.roles.insert(victim, Mutex::new(role));
        }
        Arc::new(yard)
    }

    /// A command on the stores.
    pub(crate) fn recipe(&self) -> Recipe {
        self.told(Process::binary("sawmill"))
    }

    /// Tells a command where the stores are.
    fn told(&self, recipe: Recipe) -> Recipe {
        let milliseconds = self.settings.session.as_millis();
        recipe
            .env("SAWMILL_ZOOKEEPER", &self.zookeeper)
            .env("SAWMILL_MONGODB", &self.mongodb)
            .env("SAWMILL_STORE", self.store_url())
            .env("SAWMILL_SESSION_TIMEOUT", format!("{milliseconds}ms"))
            .env("SAWMILL_CACHE", "32MiB")
            .env("SAWMILL_QUERY_MEMORY", "128MiB")
            .env("SAWMILL_BLOCK_COPIES", "0")
    }

    pub(crate) fn store_url(&self) -> String {
        format!("file://{}/store", self.files.display())
    }

    /// The address of a role.
    fn host(&self, victim: Victim) -> String {
        let number = Victim::ROLES.iter().position(|&role| role == victim).unwrap();
        match &self.settings.namespaces {
            Some(network) => format!("{network}.{}", 11 + number),
            None => "127.0.0.1".to_string(),
        }
    }

    /// A role, in its namespace and with its clock where it has these.
    fn role(&self, victim: Victim) -> Recipe {
        let name = victim.to_string();
        let scratch = self.files.join(format!("scratch-{name}"));
        std::fs::create_dir_all(&scratch).unwrap();
        let program = process::binary("sawmill");
        let mut recipe = match &self.settings.namespaces {
            Some(_) => Process::of("ip").args(["netns", "exec", &name]).arg(program),
            None => Process::of(program),
        };
        recipe = self.told(recipe).log(self.files.join("log").join(&name));
        recipe = recipe
            .env("SAWMILL_SCRATCH", scratch)
            .env("SAWMILL_WORKER_LISTEN", format!("{}:0", self.host(victim)));
        if let Some(network) = &self.settings.namespaces {
            let away = |address: &str| address.replacen("127.0.0.1", &format!("{network}.1"), 1);
            recipe = recipe
                .env("SAWMILL_ZOOKEEPER", away(&self.zookeeper))
                .env("SAWMILL_MONGODB", away(&self.mongodb))
                .env("SAWMILL_INSECURE", "true");
        }
        if let Some(library) = &self.settings.clock {
            recipe = recipe
                .env("LD_PRELOAD", library)
                .env("SAWMILL_CLOCK", self.set_clock(victim, 0));
        }
        match victim {
            Victim::Dispatcher(number) => {
                recipe.args(["dispatcher", "--listen", &self.gateways[usize::from(number) - 1]])
            }
            Victim::Compute(number) => {
                recipe = recipe.args(["compute", "--allow-exec", "--slots", "4", "--name", &name]);
                match &self.settings.small_disk {
                    Some(disk) if number == 3 => recipe.arg("--local-store").arg(disk.join("blocks")),
                    Some(_) => recipe
                        .arg("--local-store")
                        .arg(self.files.join(format!("blocks-{name}"))),
                    None => recipe,
                }
            }
            Victim::Watcher(_) => recipe.arg("watcher"),
            _ => {
                recipe = recipe
                    .args(["agent", "--dataset", "app", "--age", "200ms", "--name", &name])
                    .args(["--server", &self.gateways.join(",")])
                    .arg("--state")
                    .arg(self.files.join("state"))
                    .arg(self.files.join("lines/app.log*"));
                match &self.settings.small_disk {
                    Some(_) => recipe.args(["--local", "--copies", "2"]),
                    None => recipe,
                }
            }
        }
    }

    /// Sets the clock of a role, by an offset in seconds; gives the file that it is in.
    fn set_clock(&self, victim: Victim, offset: i64) -> PathBuf {
        let path = self.files.join(format!("clock-{victim}"));
        // Never truncated: the process has it in memory.
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        file.unwrap().write_all(&offset.to_ne_bytes()).unwrap();
        path
    }

    /// What a command gave; none when it had not ended after `patience` and was killed.
    pub(crate) async fn command(&self, recipe: Recipe, patience: Duration) -> Option<Output> {
        let mut process = recipe.start();
        let status = ended_within(&mut process, patience).await?;
        Some(Output {
            status,
            stdout: process.stdout(),
            stderr: process.stderr(),
        })
    }

    /// Does one fault, from its begin to the end of what it takes to be over.
    pub(crate) async fn strike(&self, fault: Fault, watch: &Watch) {
        match self.stores.get(&fault.victim) {
            Some(store) => self.strike_store(fault, &mut *store.lock().await, watch).await,
            None => {
                let mut role = self.roles[&fault.victim].lock().await;
                self.strike_role(fault, &mut role, watch).await;
            }
        }
    }

    async fn strike_role(&self, fault: Fault, role: &mut Process, watch: &Watch) {
        let (pid, begun) = (role.pid(), Instant::now());
        if role.ended().is_some() {
            // It ended by itself a moment ago: the supervisor starts it.
            return;
        }
        let before = Seen::look(pid);
        match fault.how {
            How::Kill => {
                let started = process::descendants(pid);
                self.remains.lock().unwrap().extend(started);
                let status = role.kill9();
                let killed = process::signal_of(status) == Some(9);
                self.proves(fault, killed && before.is_some_and(|seen| !seen.is_alive()));
                watch.struck(fault, pid, begun);
                tokio::time::sleep(fault.lasts).await;
                *role = self.role(fault.victim).start();
            }
            How::Freeze => {
                role.freeze();
                self.proves(fault, process::state(pid) == Some('T'));
                watch.struck(fault, pid, begun);
                tokio::time::sleep(fault.lasts).await;
                self.proves(fault, process::state(pid) == Some('T'));
                role.thaw();
            }
            How::Stop => {
                // One that has just been started ends at once, as any process does.
                let is_ready = || process::catches(pid, SIGTERM) || role.ended().is_some();
                self.proves(fault, until(STOP, is_ready).await);
                role.terminate();
                watch.struck(fault, pid, begun);
                match ended_within(role, STOP).await {
                    Some(status) if status.success() => {}
                    Some(status) => self.violates(format!("{fault}: it ended with {status}")),
                    None => {
                        self.violates(format!("{fault}: it had not ended after {STOP:?}"));
                        role.kill9();
                    }
                }
                tokio::time::sleep(fault.lasts).await;
                *role = self.role(fault.victim).start();
            }
            How::Cut => {
                self.proves(fault, set_link(fault.victim, "down"));
                watch.struck(fault, pid, begun);
                tokio::time::sleep(fault.lasts).await;
                self.proves(fault, set_link(fault.victim, "up"));
            }
            How::Ahead | How::Behind => {
                let days = if fault.how == How::Ahead { 40 } else { -1 };
                let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
                self.proves(fault, maps.contains("clock-"));
                self.set_clock(fault.victim, days * 24 * 3600);
                tokio::time::sleep(fault.lasts).await;
                self.set_clock(fault.victim, 0);
            }
            How::Full => {
                let disk = self.settings.small_disk.clone().unwrap_or_default();
                let ballast = disk.join("ballast");
                let filled = std::fs::write(&ballast, vec![0; SMALL_DISK_BYTES]);
                self.proves(
                    fault,
                    filled.is_err_and(|error| error.kind() == ErrorKind::StorageFull),
                );
                tokio::time::sleep(fault.lasts).await;
                std::fs::remove_file(&ballast).unwrap();
            }
        }
    }

    async fn strike_store(&self, fault: Fault, store: &mut Server, watch: &Watch) {
        let pid = store.pid();
        let before = Seen::look(pid);
        if fault.how == How::Freeze {
            store.signal(true);
            let frozen = until(SOON, || process::state(pid) == Some('T')).await;
            self.proves(fault, frozen);
            tokio::time::sleep(fault.lasts).await;
            self.proves(fault, process::state(pid) == Some('T'));
            store.signal(false);
        } else {
            store.end(fault.how).await;
            self.proves(fault, before.is_some_and(|seen| !seen.is_alive()));
            tokio::time::sleep(fault.lasts).await;
            if let Err(error) = store.restart().await {
                self.violates(format!("{fault}: it did not start again: {error}"));
            }
        }
        watch.back(fault);
    }

    fn proves(&self, fault: Fault, happened: bool) {
        if !happened {
            self.violates(format!("{fault}: the fault did not happen"));
        }
    }

    pub(crate) fn violates(&self, what: String) {
        println!("chaos: VIOLATION: {what}");
        self.violations.lock().unwrap().push(what);
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    /// Roles that ended though nobody asked them to.
    pub(crate) fn ended(&self) -> Vec<String> {
        self.ended.lock().unwrap().clone()
    }

    /// Starts roles again that end by themselves, as their supervisor would; one that panicked or crashed is a violation.
    pub(crate) async fn supervise(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            for (victim, role) in &self.roles {
                let Ok(mut role) = role.try_lock() else { continue };
                let Some(status) = role.ended() else { continue };
                let told = role.stderr();
                let last = told.lines().last().unwrap_or_default();
                let what = format!("{victim} ended by itself ({status}): {last}");
                if status.code() == Some(1) {
                    println!("chaos: {what}");
                    self.ended.lock().unwrap().push(what);
                } else {
                    self.violates(what);
                }
                tokio::time::sleep(RESTART).await;
                *role = self.role(*victim).start();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends all roles in order and looks at what they leave.
    pub(crate) async fn end(&self) {
        for (victim, role) in &self.roles {
            let mut role = role.lock().await;
            role.terminate();
            match ended_within(&mut role, STOP).await {
                Some(status) if status.success() => {}
                Some(status) => self.violates(format!("at the end {victim} ended with {status}")),
                None => self.violates(format!("at the end {victim} had not ended after {STOP:?}")),
            }
        }
        let remains = std::mem::take(&mut *self.remains.lock().unwrap());
        if !until(SOON, || !remains.iter().any(Seen::is_alive)).await {
            let left: Vec<_> = remains.iter().filter(|seen| seen.is_alive()).collect();
            self.violates(format!("killed nodes left processes behind: {left:?}"));
        }
    }
}

/// Connects a role with the others or not; whether it came to that.
fn set_link(victim: Victim, to: &str) -> bool {
    let link = format!("to-{victim}");
    let ip = |args: &[&str]| Command::new("ip").args(args).output().unwrap();
    let set = ip(&["link", "set", &link, to]);
    let shown = String::from_utf8_lossy(&ip(&["-o", "link", "show", &link]).stdout).into_owned();
    // Without UP among the flags nothing passes.
    let is_up = shown.contains(",UP") || shown.contains("<UP");
    set.status.success() && is_up == (to == "up")
}

async fn ended_within(process: &mut Process, patience: Duration) -> Option<ExitStatus> {
    let mut status = None;
    until(patience, || {
        status = process.ended();
        status.is_some()
    })
    .await;
    status
}

/// Whether a condition came true within a time.
pub(crate) async fn until(patience: Duration, mut look: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !look() {
        if begun.elapsed() > patience {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

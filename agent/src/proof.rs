//! Lines come once, whatever happens: files that grow, rotate and are compressed, a mill whose answers get lost and that is
//! restored from a backup, and an agent that dies at any step; real files, invented time.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use api::transport::Security;
use model::Name;
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    After, Config, Source, Timing,
    disk::Disk,
    follow::{Follower, Now, Wake},
    object::Packer,
    spool::Spool,
};

#[derive(Clone, Copy, Debug)]
enum Op {
    /// So many lines into the live file of a program.
    Write(u8, u8),
    /// A line of which the end comes with the next write.
    WriteHalf(u8),
    /// The live file and its elders get the next number; a new one begins.
    Rename(u8),
    /// The live file is copied to a new name and truncated.
    CopyTruncate(u8),
    /// The youngest rotated file is compressed.
    Compress(u8, bool),
    /// The agent works, after so many milliseconds.
    Turn(u16),
    /// What is cut goes into the spool.
    Pack,
    /// The mill registers the next block of each dataset; the answer comes, or is lost.
    Ship(bool),
    /// The agent dies after so many more steps on its disk.
    Die(u8),
    /// A backup of the mill is made.
    Backup,
    /// The mill is as it was when the last backup was made.
    Restore,
}

/// Numbers of a dataset, and what they belong to.
type Lane = (Name, Option<Uuid>);

/// The mill: what it has registered.
#[derive(Clone, Default)]
struct Mill {
    blocks: BTreeMap<(Lane, u64), Vec<u8>>,
    last: BTreeMap<Lane, u64>,
    ended: BTreeMap<Lane, Uuid>,
}

struct Agent {
    follower: Follower,
    spool: Arc<Spool>,
    packer: Packer,
    fuse: Arc<AtomicI64>,
}

struct World {
    dir: tempfile::TempDir,
    agent: Agent,
    mill: Mill,
    backup: Mill,
    now: Now,
    half: BTreeMap<u8, ()>,
    rotations: u32,
    written: Vec<String>,
    deaths: u32,
}

fn config(dir: &Path) -> Config {
    let source = |dataset: &str, pattern: &str| Source {
        dataset: Name::new(dataset).unwrap(),
        patterns: vec![dir.join(pattern).display().to_string()],
    };
    Config {
        name: Name::new("web7").unwrap(),
        host: "web7".to_string(),
        zone: String::new(),
        servers: vec!["127.0.0.1:1".to_string()],
        security: Security::Plain,
        state: dir.join("state"),
        spool_bytes: 1 << 20,
        block_bytes: 4096,
        age: Duration::from_secs(2),
        multiline_start: None,
        sources: vec![source("zero", "logs/0.log*"), source("others", "logs/[12].log*")],
        keeping: crate::Keeping::Shared,
        follow_links: false,
        after: After::Keep,
        stop_grace: Duration::ZERO,
        timing: Timing::default(),
    }
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let config = config(dir);
        config.check().unwrap();
        fs::create_dir_all(&config.state).unwrap();
        let fuse = Arc::new(AtomicI64::new(i64::MAX));
        let disk = Disk {
            fuse: Some(Arc::clone(&fuse)),
        };
        let (follower, spool) = Follower::open(&config, false, config.state.clone(), disk).unwrap();
        Self {
            follower,
            spool,
            packer: Packer::new().unwrap(),
            fuse,
        }
    }

    fn is_dead(&self) -> bool {
        self.fuse.load(Ordering::SeqCst) < 0
    }

    fn pack(&mut self) {
        while let Some(block) = self.follower.take_ready() {
            let object = self.packer.pack(&block).unwrap();
            if self.spool.commit(&block, &object).is_err() {
                self.follower.put_back(block);
                return;
            }
        }
    }
}

impl Mill {
    fn lane(spool: &Spool, dataset: &Name) -> Lane {
        (dataset.clone(), spool.lane(dataset).numbering)
    }

    /// Up to where a dataset is registered, as the agent counts.
    fn mark(&self, spool: &Spool, dataset: &Name) -> u64 {
        let last = self.last.get(&Self::lane(spool, dataset)).copied();
        spool.lane(dataset).base + last.unwrap_or(0)
    }

    fn ship(&mut self, spool: &Spool, dataset: &Name) -> bool {
        let mark = self.mark(spool, dataset);
        let Some(header) = spool.next(dataset, mark) else {
            return false;
        };
        assert_eq!(header.sequence, mark + 1, "a gap in {dataset}");
        let data = spool.data(&header).unwrap();
        assert_eq!(blake3::hash(&data).as_bytes()[..], header.checksums()[0]);
        let raw = zstd::decode_all(&data[..]).unwrap();
        assert_eq!(blake3::hash(&raw).as_bytes()[..], header.checksums()[1]);
        let lane = Self::lane(spool, dataset);
        assert!(!self.ended.contains_key(&lane));
        spool.note_sent(&header);
        let last = self.last.entry(lane.clone()).or_default();
        *last += 1;
        self.blocks.insert((lane, *last), raw);
        true
    }

    /// As a new connection: what was registered is told, and what is sent again is what it was. False when the agent dies.
    fn welcome(&mut self, follower: &mut Follower, spool: &Spool, now: Now) -> bool {
        for (dataset, registered, lane) in spool.registered() {
            let mark = self.mark(spool, &dataset);
            let of = Self::lane(spool, &dataset);
            if mark < registered || self.ended.contains_key(&of) {
                follower.keep(now, true);
                if !spool.is_kept(&dataset) {
                    return false;
                }
                let next = *self.ended.entry(of).or_insert_with(Uuid::new_v4);
                if spool.renumber(&dataset, next, mark).is_err() {
                    return false;
                }
                continue;
            }
            if let Some(header) = spool
                .next(&dataset, mark.saturating_sub(1))
                .filter(|header| header.sequence == mark)
            {
                let raw = zstd::decode_all(&spool.data(&header).unwrap()[..]).unwrap();
                let known = &self.blocks[&(of, mark - lane.base)];
                assert_eq!(raw, *known, "block {mark} of {dataset} changed");
            }
            spool.acknowledge(&dataset, mark, None).unwrap();
        }
        true
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for raw in self.blocks.values() {
            assert!(raw.len() <= 4096);
            lines.extend(
                String::from_utf8(raw.clone())
                    .unwrap()
                    .lines()
                    .map(str::to_string),
            );
        }
        lines.sort();
        lines
    }
}

impl World {
    fn new() -> Self {
        // Synced often: not on a disk, where there is memory to write to.
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let dir = dir.unwrap();
        fs::create_dir(dir.path().join("logs")).unwrap();
        Self {
            agent: Agent::start(dir.path()),
            dir,
            mill: Mill::default(),
            backup: Mill::default(),
            now: Now::default(),
            half: BTreeMap::new(),
            rotations: 0,
            written: Vec::new(),
            deaths: 0,
        }
    }

    fn live(&self, program: u8) -> PathBuf {
        self.dir.path().join(format!("logs/{program}.log"))
    }

    fn append(&self, program: u8, text: &str) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.live(program))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn write(&mut self, program: u8, lines: u8) {
        if self.half.remove(&program).is_some() {
            self.append(program, " end\n");
        }
        let mut text = String::new();
        for _ in 0..lines {
            let line = format!(
                "{program} line {} {}",
                self.written.len(),
                "x".repeat(self.written.len() % 90)
            );
            text += &line;
            text.push('\n');
            self.written.push(line);
        }
        self.append(program, &text);
    }

    fn do_one(&mut self, op: Op) {
        match op {
            Op::Write(program, lines) => self.write(program, lines),
            Op::WriteHalf(program) => {
                self.write(program, 0);
                let line = format!("{program} half {}", self.written.len());
                self.append(program, &line);
                self.written.push(format!("{line} end"));
                self.half.insert(program, ());
            }
            Op::Rename(program) => {
                self.write(program, 0);
                self.rotations += 1;
                let to = self
                    .live(program)
                    .with_extension(format!("log.{}", self.rotations));
                fs::rename(self.live(program), to).unwrap();
            }
            Op::CopyTruncate(program) => {
                self.write(program, 0);
                self.rotations += 1;
                let to = self
                    .live(program)
                    .with_extension(format!("log.{}", self.rotations));
                fs::copy(self.live(program), to).unwrap();
                fs::write(self.live(program), "").unwrap();
            }
            Op::Compress(program, zstd) => self.compress(program, zstd),
            Op::Turn(ms) => self.turn(ms),
            Op::Pack => self.agent.pack(),
            Op::Ship(answered) => {
                for dataset in self.agent.spool.datasets() {
                    if self.mill.ship(&self.agent.spool, &dataset) && answered {
                        let mark = self.mill.mark(&self.agent.spool, &dataset);
                        self.agent.spool.acknowledge(&dataset, mark, None).unwrap();
                    }
                }
            }
            Op::Backup => self.backup = self.mill.clone(),
            Op::Restore => {
                // What came after a numbering is in no backup from before it: that restore is not told from a newer one.
                let is_older = self.mill.ended.len() > self.backup.ended.len();
                if !is_older {
                    self.mill = self.backup.clone();
                }
                self.connect();
            }
            Op::Die(steps) => self.agent.fuse.store(i64::from(steps), Ordering::SeqCst),
        }
        if self.agent.is_dead() {
            self.deaths += 1;
            self.agent = Agent::start(self.dir.path());
            self.connect();
        }
    }

    /// Connects anew, until the agent does not die of it.
    fn connect(&mut self) {
        let Agent { follower, spool, .. } = &mut self.agent;
        if !self.mill.welcome(follower, spool, self.now) {
            self.deaths += 1;
            self.agent = Agent::start(self.dir.path());
            self.connect();
        }
    }

    fn compress(&mut self, program: u8, zstd: bool) {
        let rotated = (1..=self.rotations)
            .rev()
            .map(|number| self.live(program).with_extension(format!("log.{number}")));
        let Some(path) = rotated.into_iter().find(|path| path.exists()) else {
            return;
        };
        let bytes = fs::read(&path).unwrap();
        let (ending, packed) = if zstd {
            ("zst", zstd::encode_all(&bytes[..], 1).unwrap())
        } else {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            ("gz", encoder.finish().unwrap())
        };
        let mut to = path.clone().into_os_string();
        to.push(format!(".{ending}"));
        fs::write(to, packed).unwrap();
        fs::remove_file(path).unwrap();
    }

    fn turn(&mut self, ms: u16) {
        self.now.at += Duration::from_millis(ms.into());
        self.now.wall_ms += i64::from(ms);
        self.agent.follower.turn(self.now, &Wake::default(), false);
    }

    /// Lets everything come to its end and compares.
    fn finish(mut self) -> u32 {
        self.agent.fuse.store(i64::MAX, Ordering::SeqCst);
        (0..3).for_each(|program| self.write(program, 0));
        for _ in 0..120 {
            self.turn(1500);
            self.agent.pack();
            while self.agent.spool.datasets().iter().any(|dataset| {
                let shipped = self.mill.ship(&self.agent.spool, dataset);
                let mark = self.mill.mark(&self.agent.spool, dataset);
                self.agent.spool.acknowledge(dataset, mark, None).unwrap();
                shipped
            }) {}
        }
        self.written.sort();
        let lines = self.mill.lines();
        let missing: Vec<_> = self
            .written
            .iter()
            .filter(|line| lines.binary_search(line).is_err())
            .collect();
        assert!(missing.is_empty(), "lost: {missing:?}");
        let repeated: Vec<_> = lines
            .windows(2)
            .filter(|two| two[0] == two[1])
            .map(|two| &two[0])
            .collect();
        assert!(repeated.is_empty(), "repeated: {repeated:?}");
        assert_eq!(lines, self.written);
        assert!(self.agent.spool.is_empty());
        self.agent.follower.keep(self.now, true);
        assert_eq!(self.agent.spool.bytes(), 0);
        self.deaths
    }
}

fn op() -> impl Strategy<Value = Op> {
    let program = 0..3_u8;
    prop_oneof![
        4 => (program.clone(), 1..60_u8).prop_map(|(program, lines)| Op::Write(program, lines)),
        1 => program.clone().prop_map(Op::WriteHalf),
        1 => program.clone().prop_map(Op::Rename),
        1 => program.clone().prop_map(Op::CopyTruncate),
        1 => (program, any::<bool>()).prop_map(|(program, zstd)| Op::Compress(program, zstd)),
        5 => (0..2500_u16).prop_map(Op::Turn),
        3 => Just(Op::Pack),
        3 => any::<bool>().prop_map(Op::Ship),
        1 => (0..14_u8).prop_map(Op::Die),
        1 => Just(Op::Backup),
        1 => Just(Op::Restore),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_line_comes_once(ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in ops {
            world.do_one(op);
        }
        world.finish();
    }
}

#[test]
fn death_at_any_step_changes_nothing() {
    use Op::{Backup, Compress, CopyTruncate, Die, Pack, Rename, Restore, Ship, Turn, Write, WriteHalf};
    let story = [
        Write(0, 50),
        Write(1, 9),
        Turn(0),
        Pack,
        WriteHalf(0),
        Turn(1000),
        Write(0, 200),
        Rename(0),
        Write(0, 3),
        Turn(1500),
        Pack,
        Ship(false),
        Compress(0, false),
        CopyTruncate(1),
        Write(1, 30),
        Turn(1000),
        Turn(2500),
        Pack,
        Ship(true),
        Backup,
        Ship(true),
        Turn(1000),
        Restore,
        Turn(1000),
        Write(0, 70),
        Turn(2500),
        Pack,
        Ship(true),
        Turn(1000),
    ];
    let mut step = 0;
    loop {
        let mut world = World::new();
        world.do_one(Die(step));
        story.iter().for_each(|op| world.do_one(*op));
        if world.finish() == 0 {
            break;
        }
        step += 1;
    }
    assert!(step > 20, "{step} steps only");
}

#[test]
fn a_copy_that_stalls_is_read_once() {
    let mut world = World::new();
    for op in [
        Op::Write(0, 90),
        Op::Turn(0),
        Op::Pack,
        Op::Ship(true),
        Op::Turn(1000),
    ] {
        world.do_one(op);
    }
    let bytes = fs::read(world.live(0)).unwrap();
    let copy = world.live(0).with_extension("log.1");
    fs::write(&copy, &bytes[..bytes.len() / 2]).unwrap();
    for _ in 0..6 {
        world.do_one(Op::Turn(2500));
    }
    fs::write(&copy, &bytes).unwrap();
    fs::write(world.live(0), "").unwrap();
    world.do_one(Op::Turn(2500));
    world.finish();
}

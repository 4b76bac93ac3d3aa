//! One local ZooKeeper server.

use crate::hold::{Held, Program, tail};
use crate::zookeeper_jars::{MAIN_CLASS, class_path, java};
use crate::{Error, port};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const NAME: &str = "ZooKeeper";
const LOG_NAME: &str = "zookeeper.log";
/// Another process may take a free port before the server does; then another port is tried.
const PORT_TRIES: usize = 3;
/// A server that answers at all does so in milliseconds.
const ASK_DEADLINE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(15);

const LOG4J: &str = "\
log4j.rootLogger=WARN, OUT
log4j.appender.OUT=org.apache.log4j.ConsoleAppender
log4j.appender.OUT.target=System.err
log4j.appender.OUT.layout=org.apache.log4j.PatternLayout
log4j.appender.OUT.layout.ConversionPattern=%d{ISO8601} %-5p %c: %m%n
";
const LOGBACK: &str = r#"<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target>
    <encoder><pattern>%d{ISO8601} %-5level %logger: %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="OUT"/></root>
</configuration>
"#;

/// How to run a local ZooKeeper.
#[derive(Debug, Clone)]
pub struct ZooKeeperOptions {
    /// Holds its transaction log, snapshots, configuration and log file; made if missing. One server at a time.
    pub data_dir: PathBuf,
    /// The port on 127.0.0.1; `None` takes a free one.
    pub port: Option<u16>,
    /// ZooKeeper's unit of time: sessions expire in steps of it. Default 200 ms.
    pub tick: Duration,
    /// The shortest session timeout that clients may ask for. Default 500 ms.
    pub min_session_timeout: Duration,
    /// The longest session timeout that clients may ask for. Default 60 s.
    pub max_session_timeout: Duration,
    /// The Java heap, as in `-Xmx`. Default `1g`.
    pub heap: String,
    /// Further options for Java. Default `-XX:+UseParallelGC -Dzookeeper.digest.enabled=false`, which costs nothing
    /// that a single server needs and makes it faster.
    pub java_options: Vec<String>,
    /// Further lines of its configuration file, for instance `("secureClientPort", "2281")`.
    pub settings: Vec<(String, String)>,
    /// Whether `data_dir` is removed when the starter ends or drops the server without stopping it. Default false.
    pub scrap: bool,
    /// How long it may take until it answers. Default 60 s.
    pub start_deadline: Duration,
}

impl ZooKeeperOptions {
    /// The defaults, over this data directory: durable (it syncs before it acknowledges), on a free port.
    pub fn new(data_dir: impl Into<PathBuf>) -> ZooKeeperOptions {
        ZooKeeperOptions {
            data_dir: data_dir.into(),
            port: None,
            tick: Duration::from_millis(200),
            min_session_timeout: Duration::from_millis(500),
            max_session_timeout: Duration::from_secs(60),
            heap: "1g".to_owned(),
            java_options: ["-XX:+UseParallelGC", "-Dzookeeper.digest.enabled=false"]
                .map(str::to_owned)
                .into(),
            settings: Vec::new(),
            scrap: false,
            start_deadline: Duration::from_secs(60),
        }
    }

    fn configuration(&self, port: u16) -> String {
        let mut text = format!(
            "dataDir={}\nclientPortAddress=127.0.0.1\nclientPort={port}\ntickTime={}\nminSessionTimeout={}\n\
             maxSessionTimeout={}\nmaxClientCnxns=0\nadmin.enableServer=false\n\
             4lw.commands.whitelist=ruok,srvr,mntr,stat,cons,conf\n\
             autopurge.snapRetainCount=3\nautopurge.purgeInterval=1\n",
            self.data_dir.display(),
            self.tick.as_millis(),
            self.min_session_timeout.as_millis(),
            self.max_session_timeout.as_millis(),
        );
        for (key, value) in &self.settings {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{key}={value}");
        }
        text
    }
}

/// A running local ZooKeeper. Dropping it ends the server without waiting for that.
#[derive(Debug)]
pub struct ZooKeeper {
    options: ZooKeeperOptions,
    port: u16,
    program: Program,
    held: Held,
}

impl ZooKeeper {
    /// Starts a server and returns when it answers.
    ///
    /// Dropping the future half-way ends what was started.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Died`] with the end of its log (for instance because the port is taken),
    /// [`Error::NoAnswer`] at the deadline, [`Error::Busy`] when another server works on `data_dir`, [`Error::Io`].
    pub async fn start(mut options: ZooKeeperOptions) -> Result<ZooKeeper, Error> {
        folders::own(&options.data_dir).map_err(Error::io(&options.data_dir))?;
        options.data_dir = options
            .data_dir
            .canonicalize()
            .map_err(Error::io(&options.data_dir))?;
        let mut tries = 1;
        loop {
            let port = options.port.map_or_else(port::free, Ok)?;
            match ZooKeeper::start_at(&options, port).await {
                Err(Error::Died { .. }) if options.port.is_none() && tries < PORT_TRIES => tries += 1,
                other => return other,
            }
        }
    }

    async fn start_at(options: &ZooKeeperOptions, port: u16) -> Result<ZooKeeper, Error> {
        let program = program(options, port)?;
        let held = Held::start(&program).await?;
        let mut server = ZooKeeper {
            options: options.clone(),
            port,
            program,
            held,
        };
        server.until_it_answers().await?;
        Ok(server)
    }

    /// `127.0.0.1:port`, the connection string of a client.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of its Java process.
    pub fn pid(&self) -> u32 {
        self.held.pid()
    }

    /// Its data directory, absolute.
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.program.log
    }

    /// Whether its process lives (it may be frozen).
    pub fn is_running(&mut self) -> bool {
        self.held.ended().is_none()
    }

    /// Ends it with TERM, and with KILL after five seconds; returns when it is gone. Its data stays.
    pub async fn stop(&mut self) {
        self.held.stop().await;
    }

    /// Ends it with KILL, as a crash would; returns when it is gone. Its data stays.
    pub async fn kill(&mut self) {
        self.held.kill().await;
    }

    /// Starts it again on the same port and data directory, stopping it first when it runs; returns when it answers.
    /// Sessions and nodes are as they were.
    ///
    /// # Errors
    /// As [`ZooKeeper::start`].
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.held.stop().await;
        self.held = Held::start(&self.program).await?;
        self.until_it_answers().await
    }

    /// Stops its process in its tracks (SIGSTOP): connections stay open and nothing is answered.
    pub fn freeze(&mut self) {
        self.held.signal(Signal::SIGSTOP);
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn thaw(&mut self) {
        self.held.signal(Signal::SIGCONT);
    }

    /// The answer to `srvr`: version, latencies, counts, as text.
    ///
    /// # Errors
    /// [`Error::Ask`].
    pub async fn srvr(&self) -> Result<String, Error> {
        self.four_letters("srvr").await
    }

    /// The answer to `mntr` by key, for instance `zk_znode_count`.
    ///
    /// # Errors
    /// [`Error::Ask`].
    pub async fn mntr(&self) -> Result<BTreeMap<String, String>, Error> {
        let text = self.four_letters("mntr").await?;
        let pairs = text.lines().filter_map(|line| line.split_once('\t'));
        Ok(pairs
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect())
    }

    /// The answer to a command of four letters: `ruok`, `srvr`, `mntr`, `stat`, `cons` or `conf`.
    ///
    /// # Errors
    /// [`Error::Ask`], also when nothing came within two seconds.
    pub async fn four_letters(&self, command: &str) -> Result<String, Error> {
        ask(&self.address(), command).await.map_err(|source| Error::Ask {
            server: NAME,
            address: self.address(),
            source,
        })
    }

    async fn until_it_answers(&mut self) -> Result<(), Error> {
        let begin = Instant::now();
        let mine = format!("dataDir={}", self.options.data_dir.display());
        loop {
            let ended = self.held.ended().is_some();
            let note = match ask(&self.address(), "conf").await {
                // Ours, and not a stranger on the same port.
                Ok(answer) if answer.contains(&mine) => return Ok(()),
                Ok(answer) => format!("it said {:?}", answer.lines().next().unwrap_or_default()),
                Err(error) => error.to_string(),
            };
            if ended {
                let log = self.program.log.clone();
                return Err(Error::Died {
                    server: NAME,
                    tail: tail(&log, 20),
                    log,
                });
            }
            if begin.elapsed() > self.options.start_deadline {
                return Err(Error::NoAnswer {
                    server: NAME,
                    address: self.address(),
                    waited: begin.elapsed(),
                    note,
                    log: self.program.log.clone(),
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Writes the configuration and says what to run.
fn program(options: &ZooKeeperOptions, port: u16) -> Result<Program, Error> {
    let java = java()?;
    let jars = class_path()?;
    let conf = options.data_dir.join("conf");
    std::fs::create_dir_all(&conf).map_err(Error::io(&conf))?;
    let write = |name: &str, text: &str| {
        let path = conf.join(name);
        std::fs::write(&path, text)
            .map_err(Error::io(&path))
            .map(|()| path)
    };
    let configuration = write("zoo.cfg", &options.configuration(port))?;
    // Which of the two is read depends on the release.
    write("log4j.properties", LOG4J)?;
    write("logback.xml", LOGBACK)?;
    let class_path = std::env::join_paths(std::iter::once(&conf).chain(&jars))
        .map_err(|error| Error::io(&conf)(std::io::Error::other(error)))?;
    let mut program = Program::new(java, &options.data_dir, LOG_NAME)
        .argument(format!("-Xmx{}", options.heap))
        .arguments(&options.java_options)
        .argument("-cp")
        .argument(class_path)
        .argument(MAIN_CLASS)
        .argument(configuration);
    program.scrap = options.scrap;
    Ok(program)
}

async fn ask(address: &str, command: &str) -> std::io::Result<String> {
    let question = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(command.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(ASK_DEADLINE, question)
        .await
        .unwrap_or_else(|_| {
            Err(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no answer to {command} in time"),
            ))
        })
}

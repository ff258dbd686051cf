//! The program: subcommands, and what they print.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use nchf::charging::time::Span;
use nchf::clock::{Clock, SystemClock};
use nchf::config::{Config, Overrides, StoreUrl};
use nchf::floor::Floor;
use nchf::serve::{self, Instance};
use nchf::{audit, bench, http, telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A 5G charging function (CHF): Nchf_ConvergedCharging without a state of its own.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the charging function.
    Serve(Settings),
    /// Brings a Redis store to the current format, or says where it stands.
    Migrate {
        #[command(subcommand)]
        step: Migrate,
        #[command(flatten)]
        settings: Settings,
    },
    /// Proves conservation over a store and its record files, and prints each violated rule; exit status 1 if any is. An
    /// embedded store must not be in use.
    Audit {
        /// Further directories of record files, besides that of --cdr-dir: one for each instance.
        directories: Vec<PathBuf>,
        /// One JSON object instead of lines.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Plays SMFs over HTTP/2 against a running charging function, and measures it.
    Bench(Box<bench::Args>),
    /// Prints the document of a service.
    Openapi {
        /// nchf-convergedcharging, nchf-offlineonlycharging or admin.
        name: String,
        /// JSON instead of YAML.
        #[arg(long)]
        json: bool,
    },
    /// Validates a configuration, or prints the effective one with secrets masked.
    Config {
        #[command(subcommand)]
        step: Show,
        #[command(flatten)]
        settings: Settings,
    },
    /// Asks a running instance whether it is ready; exit status 0 if it is.
    Health {
        /// The instance's admin listener.
        #[arg(long, env = "NCHF_ADMIN_LISTEN", default_value = "127.0.0.1:8001")]
        admin_listen: String,
    },
}

#[derive(Subcommand)]
enum Migrate {
    /// Applies what is pending.
    Up,
    /// Says what is applied and what is pending.
    Status,
    /// Compares what is applied with what this program knows; exit status 1 if it differs.
    Verify,
}

#[derive(Subcommand)]
enum Show {
    Check,
    Print,
}

#[derive(Args)]
struct Settings {
    /// TOML file; unknown keys are an error.
    #[arg(long, env = "NCHF_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Nchf services: HTTP/2 prior knowledge and HTTP/1.1 on one port [default: 127.0.0.1:8000].
    #[arg(long, env = "NCHF_LISTEN", global = true)]
    listen: Option<String>,
    /// Operator's side: admin API, Swagger UI, metrics, health [default: 127.0.0.1:8001].
    #[arg(long, env = "NCHF_ADMIN_LISTEN", global = true)]
    admin_listen: Option<String>,
    /// `embedded:DIR` or `redis://host:port` [default: embedded:./nchf-data].
    #[arg(long, env = "NCHF_STORE", global = true)]
    store: Option<String>,
    /// Where files of charging data records appear [default: ./nchf-data/cdr].
    #[arg(long, env = "NCHF_CDR_DIR", global = true)]
    cdr_dir: Option<PathBuf>,
    /// NF instance id, a UUID [default: random, kept by the store].
    #[arg(long, env = "NCHF_INSTANCE_ID", global = true)]
    instance_id: Option<String>,
    /// Provisions the demo data where it is missing.
    #[arg(long, env = "NCHF_DEMO", global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    demo: Option<String>,
    /// Bearer token of the operator's side.
    #[arg(long, env = "NCHF_ADMIN_TOKEN", global = true, hide_env_values = true, hide = true)]
    admin_token: Option<String>,
}

impl Settings {
    fn load(self) -> Result<Config, nchf::config::Error> {
        let file = self.config.clone();
        Config::load(file.as_deref(), self.overrides())
    }

    /// For a program that answers nobody: it waits for no replicas, and need not know how many there are.
    fn load_without_promise(self) -> Result<Config, nchf::config::Error> {
        let file = self.config.clone();
        Config::load(file.as_deref(), Overrides { promises_nothing: true, ..self.overrides() })
    }

    fn overrides(self) -> Overrides {
        Overrides {
            listen: self.listen,
            admin_listen: self.admin_listen,
            store: self.store,
            cdr_dir: self.cdr_dir,
            instance_id: self.instance_id,
            demo: self.demo,
            admin_token: self.admin_token,
            promises_nothing: false,
        }
    }
}

/// A configuration that cannot be used.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nchf: {error:#}");
            let is_configuration = error.downcast_ref::<nchf::config::Error>().is_some();
            if is_configuration { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(settings) => {
            let config = settings.load()?;
            telemetry::log_to_stderr(&config.log).map_err(anyhow::Error::msg)?;
            runtime()?.block_on(serve(&config))
        }
        Command::Migrate { step, settings } => runtime()?.block_on(migrate(step, &settings.load_without_promise()?)),
        Command::Audit { directories, json, settings } => {
            runtime()?.block_on(audit(&settings.load_without_promise()?, directories, json))
        }
        Command::Bench(args) if args.floor => {
            let overrides = Overrides { listen: args.listen, store: args.store, ..Overrides::default() };
            let config = Config::load(args.config.as_deref(), overrides)?;
            telemetry::log_to_stderr(&config.log).map_err(anyhow::Error::msg)?;
            runtime()?.block_on(serve_floor(&config))
        }
        Command::Bench(args) => {
            println!("{}", bench::run(&args)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Openapi { name, json } => {
            let names = http::openapi::DOCUMENTS.map(|(name, _)| name).join(", ");
            let document = http::openapi::named(&name).context(format!("no document {name}: there are {names}"))?;
            let text = if json { document.to_pretty_json()? + "\n" } else { http::openapi::yaml(&document) };
            print!("{text}");
            Ok(ExitCode::SUCCESS)
        }
        Command::Config { step, settings } => {
            let config = settings.load()?;
            match step {
                Show::Check => println!("the configuration can be used"),
                Show::Print => print!("{}", config.to_toml()),
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Health { admin_listen } => Ok(health(&admin_listen)),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The signals that end the program.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From here on they do not end it by themselves.
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn serve(config: &Config) -> anyhow::Result<ExitCode> {
    use std::io::Write as _;

    let mut stop = Stop::listen()?;
    let instance = tokio::select! {
        started = Instance::start(config) => started?,
        () = stop.told() => return Ok(ExitCode::SUCCESS),
    };
    // Whoever started the program may have gone; that is no reason not to charge.
    let _ = writeln!(std::io::stdout(), "nchf: charging on {}://{}", config.scheme(), instance.address());
    let _ = writeln!(std::io::stdout(), "nchf: operator's side on http://{}/docs", instance.operator_address());
    tokio::select! {
        () = stop.told() => {}
        why = instance.store_failed() => {
            // Going on would answer for what is not kept.
            anyhow::bail!("the store has failed and can no longer be trusted: {why}; mend that and start again");
        }
    }
    tracing::info!("shutting down");
    instance.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn serve_floor(config: &Config) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let floor = Floor::start(config).await?;
    println!("nchf: the floor on {}://{}", config.scheme(), floor.address());
    stop.told().await;
    floor.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn migrate(step: Migrate, config: &Config) -> anyhow::Result<ExitCode> {
    use nchf::store::redis::Migrations;

    let StoreUrl::Redis(url) = config.store_url()? else {
        anyhow::bail!("store.url = {}: only a Redis store has migrations", config.store.url);
    };
    let migrations = Migrations::of(&serve::redis_settings(config, url))?;
    match step {
        Migrate::Up => {
            let applied = migrations.up().await?;
            for name in &applied {
                println!("applied {name}");
            }
            println!("{} applied; the store is up to date", applied.len());
        }
        Migrate::Status => {
            for migration in migrations.status().await? {
                println!("{}: {}", migration.name, migration.state);
            }
        }
        Migrate::Verify => migrations.verify().await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn audit(config: &Config, further: Vec<PathBuf>, json: bool) -> anyhow::Result<ExitCode> {
    let store = serve::open_to_read(config).await?;
    // Where the files of all instances are collected elsewhere, the one that this machine would write to may be missing.
    let own = Some(config.cdr_dir.clone()).filter(|own| further.is_empty() || own.exists());
    let settings = audit::Settings {
        now: SystemClock.now(),
        retention: Span::from_secs(config.cdr.retention_secs),
        directories: own.into_iter().chain(further).collect(),
    };
    let report = audit::audit(&*store, &settings).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A hand-written HTTP/1.1 request, so that a container needs no other program for its health check.
fn health(address: &str) -> ExitCode {
    use std::io::{Read, Write};
    use std::time::Duration;

    let ask = || -> std::io::Result<String> {
        let mut connection = std::net::TcpStream::connect(address)?;
        connection.set_read_timeout(Some(Duration::from_secs(3)))?;
        connection.write_all(b"GET /readyz HTTP/1.1\r\nhost: health\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => {
            println!("ready");
            ExitCode::SUCCESS
        }
        Ok(answer) => {
            println!("not ready: {}", answer.lines().last().unwrap_or_default());
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("no answer from {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

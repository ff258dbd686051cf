//! What the program says to whoever starts it: one line that names the thing to mend.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};

fn nchf(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nchf"));
    // Free ports, so that only what a test is about can fail.
    command.args(arguments).env("NCHF_LISTEN", "127.0.0.1:0").env("NCHF_ADMIN_LISTEN", "127.0.0.1:0");
    command
}

/// Ended with the test, however that ends.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[track_caller]
fn says(output: &Output, code: i32, line: &str) {
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{said}{error}");
    assert_eq!(error, format!("nchf: {line}\n"));
}

#[test]
fn a_port_in_use_is_named_once() {
    let store = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = nchf(&["serve", "--listen", &address]);
    let output = command.arg("--store").arg(format!("embedded:{}", store.path().display())).output().unwrap();
    says(&output, 1, &format!("cannot listen on {address}: Address already in use (os error 98)"));
}

#[test]
fn a_certificate_that_is_not_there_is_named_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nchf.toml");
    let settings = "[tls]\ncertificate = \"/nowhere/certificate.pem\"\nkey = \"/nowhere/key.pem\"\n";
    std::fs::write(&file, settings).unwrap();
    let mut command = nchf(&["serve", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let output = command.arg("--store").arg(format!("embedded:{}", directory.path().display())).output().unwrap();
    let reason = "No such file or directory (os error 2)";
    says(&output, 1, &format!("tls: /nowhere/certificate.pem: I/O error: {reason}"));
}

#[test]
fn a_second_program_on_one_embedded_store_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().display();
    let store = format!("embedded:{directory}");
    let first = nchf(&["serve", "--store", &store]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = Ended(first);
    // The pipe is closed after the first line, and the program goes on all the same.
    let listens = BufReader::new(first.0.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    assert!(listens.starts_with("nchf: charging on http://127.0.0.1:"), "{listens}");
    let second = nchf(&["serve", "--store", &store]).output().unwrap();
    let line = format!("the store in {directory} is open in another process: only one nchf can use it at a time");
    says(&second, 1, &line);
}

#[test]
fn a_redis_that_is_not_there_is_named_without_its_password_and_waited_for() {
    // The port is free again when the listener is dropped.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = nchf(&["serve", "--store", &format!("redis://chf:secret@127.0.0.1:{port}")]);
    let mut waiting = Ended(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let said = BufReader::new(waiting.0.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    let reason = format!("redis://***@127.0.0.1:{port}: cannot connect to Redis: Connection refused (os error 111)");
    assert!(said.contains(&reason) && !said.contains("secret"), "{said}");
    // Whoever waits ends when it is asked to.
    let id = waiting.0.id().to_string();
    assert!(Command::new("kill").arg(id).status().unwrap().success());
    assert!(waiting.0.wait().unwrap().success());
}

#[test]
fn a_switch_in_the_environment_is_what_people_write() {
    for (value, shown) in [("1", "demo = true"), ("true", "demo = true"), ("0", "demo = false"), ("no", "demo = false")]
    {
        let output = nchf(&["config", "print"]).env("NCHF_DEMO", value).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains(shown), "NCHF_DEMO={value}: {printed}");
    }
    let output = nchf(&["serve"]).env("NCHF_DEMO", "perhaps").output().unwrap();
    says(&output, 2, "demo = perhaps: true or false is needed");
}

#[test]
fn a_switch_comes_from_its_flag_then_from_the_environment_then_from_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nchf.toml");
    std::fs::write(&file, "demo = true\n").unwrap();
    let file = file.to_str().unwrap();
    let shown = |arguments: &[&str], variable: Option<&str>| {
        let output = nchf(&[&["config", "print", "--config", file], arguments].concat())
            .envs(variable.map(|value| ("NCHF_DEMO", value)))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).lines().find(|line| line.starts_with("demo")).unwrap().to_owned()
    };
    assert_eq!(shown(&[], None), "demo = true");
    assert_eq!(shown(&[], Some("false")), "demo = false");
    assert_eq!(shown(&["--demo"], Some("false")), "demo = true");
    assert_eq!(shown(&["--demo=false"], Some("true")), "demo = false");
}

#[test]
fn what_is_logged_into_a_pipe_has_no_colours() {
    let store = tempfile::tempdir().unwrap();
    let mut command = nchf(&["serve", "--store", &format!("embedded:{}", store.path().display())]);
    let mut program = Ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    BufReader::new(program.0.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    Command::new("kill").arg(program.0.id().to_string()).status().unwrap();
    let logged: Vec<_> = BufReader::new(program.0.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(logged.iter().any(|line| line.contains("shutting down")), "{logged:?}");
    assert!(logged.iter().all(|line| !line.contains('\u{1b}')), "{logged:?}");
}

//! HAProxy with the configuration that is delivered, for any number of instances.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::store::server::{Process, free_port};

/// HTTP/2 on both sides; ended with the test.
pub struct Balancer {
    process: Option<Process>,
    _configuration: tempfile::NamedTempFile,
    pub address: SocketAddr,
}

impl Balancer {
    /// `instances`: where each charges, and where its operator's side is.
    pub fn start(instances: &[[u16; 2]]) -> Self {
        let delivered = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/haproxy.cfg")).unwrap();
        let mut text = String::new();
        for line in delivered.lines().filter(|line| !line.trim_start().starts_with("server two")) {
            if line.trim_start().starts_with("server one") {
                for number in 1..=instances.len() {
                    let of = line.replace("NCHF_1", &format!("NCHF_{number}"));
                    text += &of.replace("one ", &format!("i{number} ")).replace("/one", &format!("/i{number}"));
                    text.push('\n');
                }
            } else {
                text += line;
                text.push('\n');
            }
        }
        let configuration = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(configuration.path(), text).unwrap();
        let [charging, operator] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(configuration.path());
        command.env("NCHF_BIND", &charging).env("NCHF_ADMIN_BIND", operator);
        for (number, [charging, operator]) in (1..).zip(instances) {
            command.env(format!("NCHF_{number}"), format!("127.0.0.1:{charging}"));
            command.env(format!("NCHF_{number}_ADMIN"), format!("127.0.0.1:{operator}"));
        }
        let mut process = Process::start(&command);
        let address = charging.parse().unwrap();
        for _ in 0..500 {
            if TcpStream::connect(address).is_ok() {
                return Self { process: Some(process), _configuration: configuration, address };
            }
            assert!(!process.has_ended(), "haproxy ended: these tests need it (apt-get install haproxy)");
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("haproxy does not listen");
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of QMP, QEMU's control protocol: JSON objects, one per line.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{json, Value};

use crate::error::{Error, Result};
use crate::socket::dial;

/// How long QEMU may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line accepted in bytes.
const LINE_LIMIT: u64 = 1 << 20;

/// A connection. QEMU talks to one client at a time, so it is kept no longer than needed.
#[derive(Debug)]
pub struct Qmp {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Qmp {
    /// Connects and leaves the negotiation mode. Fails at once if nobody listens.
    pub fn connect(socket: &Path) -> Result<Qmp> {
        let attempt = "connecting to qmp";
        let stream = dial(socket).map_err(Error::file(attempt, socket))?;
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(TIMEOUT)))
            .and_then(|()| stream.set_write_timeout(Some(TIMEOUT)))
            .map_err(Error::file(attempt, socket))?;
        let stream = BufReader::new(stream);
        let mut qmp = Qmp { socket: socket.to_owned(), stream, next_id: 0 };
        let greeting = qmp.line("greeting")?;
        if greeting.get("QMP").is_none() {
            return Err(qmp.error("greeting", format!("unexpected {greeting}")));
        }
        qmp.execute("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// Runs `command` and gives back what it returns. Events that come in between are passed over.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let line = format!("{request}\n");
        if let Err(error) = self.stream.get_mut().write_all(line.as_bytes()) {
            return Err(self.error(command, error.to_string()));
        }
        loop {
            let mut answer = self.line(command)?;
            if answer.get("id") != Some(&json!(id)) {
                continue;
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            let reason = answer["error"]["desc"].as_str().unwrap_or("unexplained error");
            return Err(self.error(command, reason.to_owned()));
        }
    }

    /// Ends QEMU.
    pub fn quit(&mut self) -> Result<()> {
        self.execute("quit", Value::Null).map(drop)
    }

    /// Runs a command of QEMU's console for people, for what QMP has no command, and returns what that says.
    pub fn monitor(&mut self, command: &str) -> Result<String> {
        let arguments = json!({ "command-line": command });
        let answer = self.execute("human-monitor-command", arguments)?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Stops the guest's processors.
    pub fn stop(&mut self) -> Result<()> {
        self.execute("stop", Value::Null).map(drop)
    }

    /// Lets them run again.
    pub fn cont(&mut self) -> Result<()> {
        self.execute("cont", Value::Null).map(drop)
    }

    /// Presses the power button.
    pub fn system_powerdown(&mut self) -> Result<()> {
        self.execute("system_powerdown", Value::Null).map(drop)
    }

    /// Gives or takes the carrier of the network device `device`.
    pub fn set_link(&mut self, device: &str, up: bool) -> Result<()> {
        self.execute("set_link", json!({ "name": device, "up": up })).map(drop)
    }

    /// What the guest is doing: `running`, `paused`, `shutdown`…
    pub fn status(&mut self) -> Result<String> {
        let answer = self.execute("query-status", Value::Null)?;
        let status = answer["status"].as_str().map(str::to_owned);
        status.ok_or_else(|| self.error("query-status", format!("unexpected {answer}")))
    }

    /// How many instructions the guest has executed; 0 where they are not counted.
    pub fn executed(&mut self) -> Result<u64> {
        // Nothing is recorded or replayed; it is just the command that tells.
        let answer = self.execute("query-replay", Value::Null)?;
        let count = answer["icount"].as_u64();
        count.ok_or_else(|| self.error("query-replay", format!("unexpected {answer}")))
    }

    fn line(&mut self, command: &str) -> Result<Value> {
        let mut line = String::new();
        let read = self.stream.by_ref().take(LINE_LIMIT).read_line(&mut line);
        match read {
            Ok(0) => Err(self.error(command, "qemu closed the connection".to_owned())),
            Ok(_) => serde_json::from_str(&line)
                .map_err(|error| self.error(command, format!("answer is not JSON: {error}"))),
            Err(error) if crate::socket::not_now(&error) => {
                Err(self.error(command, format!("no answer within {} s", TIMEOUT.as_secs())))
            }
            Err(error) => Err(self.error(command, error.to_string())),
        }
    }

    fn error(&self, command: &str, reason: String) -> Error {
        Error::Qmp { command: command.to_owned(), socket: self.socket.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

    /// A server that greets, then answers each request by what `answers` makes of it, and returns the requests.
    fn server(
        path: &Path,
        greeting: &'static str,
        answers: impl Fn(&Value) -> Vec<String> + Send + 'static,
    ) -> JoinHandle<Vec<Value>> {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            writeln!(stream, "{greeting}").unwrap();
            let mut requests = Vec::new();
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
                for answer in answers(&request) {
                    writeln!(stream, "{answer}").unwrap();
                }
                requests.push(request);
            }
            requests
        })
    }

    fn returning(request: &Value, value: Value) -> String {
        json!({ "return": value, "id": request["id"] }).to_string()
    }

    #[test]
    fn commands_are_matched_with_their_answers_among_events() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        let server = server(&path, GREETING, |request| {
            let event = r#"{"event": "STOP", "timestamp": {}}"#.to_owned();
            let value = match request["execute"].as_str() {
                Some("query-status") => json!({ "status": "paused", "running": false }),
                _ => json!({}),
            };
            vec![event, returning(request, value)]
        });
        let mut qmp = Qmp::connect(&path).unwrap();
        assert_eq!(qmp.status().unwrap(), "paused");
        qmp.set_link("cluster0", false).unwrap();
        drop(qmp);
        let requests = server.join().unwrap();
        let commands: Vec<_> = requests.iter().map(|r| r["execute"].as_str().unwrap()).collect();
        assert_eq!(commands, ["qmp_capabilities", "query-status", "set_link"]);
        assert_eq!(requests[2]["arguments"], json!({ "name": "cluster0", "up": false }));
    }

    #[test]
    fn refusals_carry_qemus_words() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        let server = server(&path, GREETING, |request| match request["execute"].as_str() {
            Some("qmp_capabilities") => vec![returning(request, json!({}))],
            _ => {
                let error = json!({ "class": "GenericError", "desc": "Device 'x' not found" });
                vec![json!({ "error": error, "id": request["id"] }).to_string()]
            }
        });
        let mut qmp = Qmp::connect(&path).unwrap();
        let error = qmp.set_link("x", true).unwrap_err().to_string();
        assert!(error.contains("set_link") && error.ends_with("Device 'x' not found"), "{error}");
        drop(qmp);
        server.join().unwrap();
    }

    #[test]
    fn a_server_that_speaks_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for (n, greeting) in ["HTTP/1.1 400 Bad Request", r#"{"hello": 1}"#].into_iter().enumerate()
        {
            let path = directory.path().join(n.to_string());
            let server = server(&path, greeting, |_| vec![]);
            assert!(Qmp::connect(&path).is_err());
            server.join().unwrap();
        }
    }

    #[test]
    fn nobody_listening_is_an_error_at_once() {
        assert!(Qmp::connect(Path::new("/nonexistent/qmp")).is_err());
    }
}

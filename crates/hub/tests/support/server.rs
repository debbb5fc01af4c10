//! A small server of HTTP/1.1, that can misbehave: one request per connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With what follows `?`.
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|h| h.0.eq_ignore_ascii_case(name)).map(|h| h.1.as_str())
    }

    /// The first byte that is asked for.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    fn read(connection: &TcpStream) -> Option<Request> {
        let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
        let first = lines.next()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
        let headers = lines.take_while(|line| !line.is_empty());
        let headers = headers.filter_map(|line| line.split_once(": ").map(|(n, v)| (n.into(), v.into()))).collect();
        Some(Request { method, path, headers })
    }
}

/// An answer.
#[derive(Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// How many bytes of the body are sent before the connection ends.
    cut: usize,
    /// How long nothing is sent.
    silent: Duration,
}

impl Reply {
    pub fn status(status: u16) -> Reply {
        Reply { status, headers: vec![], body: vec![], cut: usize::MAX, silent: Duration::ZERO }
    }

    pub fn ok(body: &[u8]) -> Reply {
        Reply { body: body.to_vec(), ..Reply::status(200) }
    }

    /// Bytes, from that on which the request asks for.
    pub fn part(bytes: &[u8], request: &Request) -> Reply {
        match request.from() {
            None => Reply::ok(bytes),
            Some(from) if from >= bytes.len() => Reply::status(416),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Reply { body: bytes[from..].to_vec(), ..Reply::status(206) }.with("Content-Range", &range)
            }
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Ends the connection after so many bytes of the body.
    pub fn cut_after(mut self, bytes: usize) -> Reply {
        self.cut = bytes;
        self
    }

    /// Says nothing for so long.
    pub fn silent_for(mut self, time: Duration) -> Reply {
        self.silent = time;
        self
    }

    fn write(&self, request: &Request, mut connection: &TcpStream) -> std::io::Result<()> {
        thread::sleep(self.silent);
        let mut head =
            format!("HTTP/1.1 {} x\r\nConnection: close\r\nContent-Length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        connection.write_all((head + "\r\n").as_bytes())?;
        if request.method != "HEAD" {
            connection.write_all(&self.body[..self.cut.min(self.body.len())])?;
        }
        connection.shutdown(std::net::Shutdown::Write)
    }
}

/// A server, until the test ends.
pub struct Server {
    /// `http://127.0.0.1:1234`.
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// One that answers with `answer`, which is also told how many requests of the same method and path came before.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, requests) = (Arc::new(answer), seen.clone());
        thread::spawn(move || {
            let mut counts: HashMap<String, usize> = HashMap::new();
            for connection in listener.incoming().map_while(Result::ok) {
                let Some(request) = Request::read(&connection) else { continue };
                requests.lock().unwrap().push(request.clone());
                let count = counts.entry(format!("{} {}", request.method, request.path)).or_default();
                let before = *count;
                *count += 1;
                let answer = answer.clone();
                // The client may hang up, as it does when it was sent too much.
                thread::spawn(move || answer(&request, before).write(&request, &connection).unwrap_or_default());
            }
        });
        Server { address, seen }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Where the range of each request for a body began.
    pub fn ranges(&self) -> Vec<Option<usize>> {
        self.seen().iter().filter(|r| r.method == "GET").map(Request::from).collect()
    }
}

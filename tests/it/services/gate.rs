//! A man in the middle who speaks HTTP: each request is passed on, answered by the test, or served and its reply lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::io::{AsyncBufReadExt, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request as the client sent it, without its body.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// In small letters.
    pub(crate) headers: Vec<(String, String)>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is(&self, method: &str, target: &str) -> bool {
        self.method == method && self.target.contains(target)
    }
}

/// What happens to a request.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It is passed on, and so is its reply.
    Pass,
    /// It is answered with this status and body, and the server hears nothing.
    Answer(u16, String),
    /// It is passed on, and the connection ends when the reply is there.
    LoseReply,
    /// It is passed on, and the connection ends after so many bytes of the reply's body.
    CutReply(usize),
    /// It is passed on, and after so many bytes of the reply's body nothing more comes, and no end.
    StallReply(usize),
    /// There is never an answer.
    Silence,
}

type Judge = Arc<Mutex<dyn FnMut(&Asked) -> Fate + Send>>;

/// A running gate, which ends with this value.
pub(crate) struct Gate {
    address: SocketAddr,
    judge: Arc<Mutex<Judge>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Gate {
    /// Before a server on this port of 127.0.0.1. Everything passes.
    pub(crate) fn start(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let judge: Arc<Mutex<Judge>> = Arc::new(Mutex::new(Arc::new(Mutex::new(|_: &Asked| Fate::Pass))));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (judging, noting) = (Arc::clone(&judge), Arc::clone(&asked));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let mut connections = JoinSet::new();
                let accepting = async {
                    loop {
                        let Ok((client, _)) = listener.accept().await else { return };
                        let (judging, noting) = (Arc::clone(&judging), Arc::clone(&noting));
                        connections.spawn(async move { drop(serve(client, port, &judging, &noting).await) });
                    }
                };
                tokio::select! { () = accepting => {}, _ = ended => {} }
            });
        });
        Self { address, judge, asked, end: Some(end), thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this decides, and the requests are counted from here.
    pub(crate) fn set(&self, judge: impl FnMut(&Asked) -> Fate + Send + 'static) {
        *self.judge.lock().unwrap() = Arc::new(Mutex::new(judge));
        self.asked.lock().unwrap().clear();
    }

    /// The requests since then.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, method: &str, target: &str) -> usize {
        self.asked().iter().filter(|asked| asked.is(method, target)).count()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.end = None;
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the gate panicked");
    }
}

/// The first line, the headers as they came, and the length of the body that follows; `None` at the end.
async fn head(from: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut whole = Vec::new();
    loop {
        let before = whole.len();
        if from.read_until(b'\n', &mut whole).await? == 0 {
            return Ok(None);
        }
        if whole[before..].trim_ascii().is_empty() {
            let text = String::from_utf8_lossy(&whole).into_owned();
            return Ok(Some((text, whole)));
        }
    }
}

fn headers(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect()
}

fn length(headers: &[(String, String)]) -> Option<u64> {
    headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok())
}

async fn serve(client: TcpStream, port: u16, judge: &Mutex<Judge>, noted: &Mutex<Vec<Asked>>) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    while let Some((text, raw)) = head(&mut client).await? {
        let mut words = text.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let asked = Asked { method: method.to_owned(), target: target.to_owned(), headers: headers(&text) };
        let body = length(&asked.headers).unwrap_or(0);
        let judge = Arc::clone(&judge.lock().unwrap());
        let fate = (judge.lock().unwrap())(&asked);
        noted.lock().unwrap().push(asked);
        match fate {
            Fate::Answer(status, said) => {
                tokio::io::copy(&mut (&mut client).take(body), &mut tokio::io::sink()).await?;
                let said = if method == "HEAD" { String::new() } else { said };
                let reply = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{said}", said.len());
                client.get_mut().write_all(reply.as_bytes()).await?;
                continue;
            }
            Fate::Silence => return std::future::pending().await,
            Fate::Pass | Fate::LoseReply | Fate::CutReply(_) | Fate::StallReply(_) => {}
        }
        // One connection for each request: then a reply without a length ends with it.
        let mut server = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
        server.get_mut().write_all(&raw).await?;
        tokio::io::copy(&mut (&mut client).take(body), server.get_mut()).await?;
        let (mut text, mut raw) = head(&mut server).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        while text.starts_with("HTTP/1.1 100") {
            (text, raw) = head(&mut server).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        }
        let bodiless =
            method == "HEAD" || text.split(' ').nth(1).is_some_and(|status| status == "204" || status == "304");
        let length = if bodiless { Some(0) } else { length(&headers(&text)) };
        match fate {
            Fate::LoseReply => {
                tokio::io::copy(&mut server.take(length.unwrap_or(u64::MAX)), &mut tokio::io::sink()).await?;
                return Ok(());
            }
            Fate::CutReply(most) | Fate::StallReply(most) => {
                client.get_mut().write_all(&raw).await?;
                tokio::io::copy(&mut server.take(most as u64), client.get_mut()).await?;
                client.get_mut().flush().await?;
                if matches!(fate, Fate::StallReply(_)) {
                    return std::future::pending().await;
                }
                return Ok(());
            }
            _ => {}
        }
        client.get_mut().write_all(&raw).await?;
        if let Some(length) = length {
            tokio::io::copy(&mut server.take(length), client.get_mut()).await?;
            continue;
        }
        // In chunks, or until the end, with which the connection ends.
        let chunked = headers(&text).iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        if !chunked {
            tokio::io::copy(&mut server, client.get_mut()).await?;
            return Ok(());
        }
        chunks(&mut server, &mut client).await?;
    }
    Ok(())
}

/// Passes a body in chunks on: <https://www.rfc-editor.org/rfc/rfc9112#section-7.1>.
async fn chunks(server: &mut BufReader<TcpStream>, client: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    loop {
        let mut line = Vec::new();
        server.read_until(b'\n', &mut line).await?;
        client.get_mut().write_all(&line).await?;
        let size = String::from_utf8_lossy(&line);
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
        // With the line end after it; the last one has no trailers here.
        tokio::io::copy(&mut server.take(size + 2), client.get_mut()).await?;
        if size == 0 {
            return Ok(());
        }
    }
}

//! A TCP proxy whose connections break as a test wants them to.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// What goes wrong.
///
/// `Delay`, `Stall` and `Reset` concern the connections that are there as well, the others new ones only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every piece is passed on this much later, in both directions.
    Delay(Duration),
    /// Connections are accepted, and nothing is passed on. What waits goes on with the next fault.
    Stall,
    /// Both sides are closed when the client has sent so many bytes; these are passed on.
    CutAfter(u64),
    /// Both sides are closed when so many bytes have been answered; these are passed on.
    CutReplyAfter(u64),
    /// Connections are accepted and reset.
    Reset,
    /// Connections are refused.
    Refuse,
    /// The client's first words are answered with these bytes, and the target hears nothing.
    Reply(Vec<u8>),
}

/// A running proxy, which ends with this value, and its connections with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    count: Arc<AtomicU64>,
    faults: Option<mpsc::UnboundedSender<(Fault, std::sync::mpsc::Sender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

/// Why nothing more is passed on in one direction.
enum End {
    /// There was nothing more.
    Whole,
    /// The fault, or a side that went away.
    Cut,
}

impl Proxy {
    /// Starts it on this machine's loopback, without fault.
    pub(crate) fn start(target: SocketAddr) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, target)
    }

    /// Starts it at an address of this machine.
    pub(crate) fn start_at(address: Ipv4Addr, target: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let socket = runtime.block_on(async { bind((address, 0).into()) }).expect("the address is ours");
        let address = socket.local_addr().expect("a bound socket has an address");
        let count = Arc::new(AtomicU64::new(0));
        let (faults, given) = mpsc::unbounded_channel();
        let counter = Arc::clone(&count);
        let thread = std::thread::spawn(move || runtime.block_on(run(socket, target, given, counter)));
        let proxy = Self { address, count, faults: Some(faults), thread: Some(thread) };
        proxy.set(Fault::None);
        proxy
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this goes wrong, and nothing else.
    pub(crate) fn set(&self, fault: Fault) {
        let (done, wait) = std::sync::mpsc::channel();
        self.faults.as_ref().expect("it is there until the end").send((fault, done)).expect("the proxy runs");
        wait.recv().expect("the proxy runs");
    }

    /// How many connections were accepted so far.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.faults = None;
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the proxy panicked");
    }
}

/// A socket that holds its port, and refuses connections until it listens.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The socket of a proxy.
enum Door {
    Open(TcpListener),
    Shut(TcpSocket),
}

async fn run(
    socket: TcpSocket,
    target: SocketAddr,
    mut given: mpsc::UnboundedReceiver<(Fault, std::sync::mpsc::Sender<()>)>,
    count: Arc<AtomicU64>,
) {
    let address = socket.local_addr().expect("a bound socket has an address");
    let mut door = Door::Shut(socket);
    let (fault, _) = watch::channel(Fault::Refuse);
    // A fault that follows at once must not hide a reset from connections that have not looked yet.
    let (resets, _) = watch::channel(0_u64);
    // They end with this function.
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            match &door {
                Door::Open(listener) => listener.accept().await,
                Door::Shut(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            // A connection that came before a fault began without it.
            biased;
            accepted = accept => if let Ok((client, _)) = accepted {
                count.fetch_add(1, Ordering::SeqCst);
                let first = fault.borrow().clone();
                connections.spawn(serve(client, target, first, fault.subscribe(), resets.subscribe()));
            },
            new = given.recv() => {
                let Some((new, done)) = new else { return };
                door = match (door, new == Fault::Refuse) {
                    (Door::Shut(socket), false) => Door::Open(socket.listen(1024).expect("the port is ours")),
                    (Door::Open(listener), true) => {
                        drop(listener);
                        Door::Shut(bind(address).expect("nobody took the port"))
                    }
                    (door, _) => door,
                };
                if new == Fault::Reset {
                    resets.send_modify(|count| *count += 1);
                }
                fault.send_replace(new);
                let _ = done.send(());
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(
    mut client: TcpStream,
    target: SocketAddr,
    mut first: Fault,
    fault: watch::Receiver<Fault>,
    mut resets: watch::Receiver<u64>,
) {
    if first == Fault::Stall {
        going_on(&fault).await;
        first = fault.borrow().clone();
    }
    match first {
        Fault::Reset => return reset(client),
        Fault::Reply(bytes) => return reply(client, &bytes).await,
        _ => {}
    }
    let Ok(mut server) = TcpStream::connect(target).await else { return reset(client) };
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let (up, down) = match first {
        Fault::CutAfter(bytes) => (bytes, u64::MAX),
        Fault::CutReplyAfter(bytes) => (u64::MAX, bytes),
        _ => (u64::MAX, u64::MAX),
    };
    let is_reset = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            biased;
            found = resets.changed() => found.is_ok(),
            () = async {
                let up = pass(&mut from_client, &mut to_server, up, &fault);
                let down = pass(&mut from_server, &mut to_client, down, &fault);
                let cut = |end: End| if matches!(end, End::Cut) { Err(()) } else { Ok(()) };
                let _ = tokio::try_join!(async { cut(up.await) }, async { cut(down.await) });
            } => false,
        }
    };
    if is_reset {
        reset(client);
        reset(server);
    } else {
        let _ = client.shutdown().await;
        let _ = server.shutdown().await;
    }
}

/// Passes bytes on in one direction, at most so many.
async fn pass(
    from: &mut tokio::net::tcp::ReadHalf<'_>,
    to: &mut tokio::net::tcp::WriteHalf<'_>,
    mut left: u64,
    fault: &watch::Receiver<Fault>,
) -> End {
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        going_on(fault).await;
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let Ok(read) = from.read(&mut buffer[..most]).await else { return End::Cut };
        going_on(fault).await;
        let current = fault.borrow().clone();
        if let Fault::Delay(delay) = current {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            return if to.shutdown().await.is_ok() { End::Whole } else { End::Cut };
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return End::Cut;
        }
        left -= read as u64;
    }
    End::Cut
}

/// Waits while everything stalls.
async fn going_on(fault: &watch::Receiver<Fault>) {
    let _ = fault.clone().wait_for(|fault| *fault != Fault::Stall).await;
}

/// Answers, and then listens until the client has ended: to close earlier may take the answer away from it.
async fn reply(mut client: TcpStream, bytes: &[u8]) {
    let mut buffer = vec![0; 16 << 10];
    if !matches!(client.read(&mut buffer).await, Ok(read) if read > 0) {
        return;
    }
    let _ = client.write_all(bytes).await;
    let _ = client.shutdown().await;
    let listen = async { while matches!(client.read(&mut buffer).await, Ok(read) if read > 0) {} };
    let _ = tokio::time::timeout(Duration::from_secs(10), listen).await;
}

/// Closes with a RST packet instead of a FIN.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
    drop(stream);
}

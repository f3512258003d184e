//! A proxy between calve and a part, which does what networks, gateways and load balancers do at the worst moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request never arrives; the connection is reset.
    Reset,
    /// The request arrives, its answer is lost with the connection.
    LoseAnswer,
    /// The request arrives, its answer never comes and the connection stays open.
    Stall,
    /// The request arrives late.
    Delay(Duration),
    /// HTTP: the request never arrives and this status is the answer.
    Refuse(u16),
    /// HTTP: the request arrives, and this status takes its answer's place.
    Garble(u16),
    /// HTTP: the request never arrives; this status and this body are the answer.
    Say(u16, &'static str),
    /// REST catalogs: a request to change two tables arrives as one to change the second alone.
    Halve,
}

#[derive(Default)]
struct Plan {
    /// What a request must contain to be hit, the fault, and how often.
    armed: Vec<(Vec<u8>, Fault, u32)>,
    /// How many requests met a fault.
    met: u32,
    /// HTTP requests by method.
    requests: BTreeMap<&'static str, u64>,
    /// What is put in place of what in answers; both are of one length.
    rewritten: Option<(Vec<u8>, Vec<u8>)>,
}

impl Plan {
    /// Counts what begins an HTTP request.
    fn count(&mut self, chunk: &[u8]) {
        let method = ["GET", "HEAD", "PUT", "POST", "DELETE"].into_iter().find(|method| {
            chunk
                .strip_prefix(method.as_bytes())
                .is_some_and(|rest| rest.starts_with(b" /") || rest.starts_with(b" http"))
        });
        if let Some(method) = method {
            *self.requests.entry(method).or_default() += 1;
        }
    }

    fn take(&mut self, request: &[u8]) -> Option<Fault> {
        let index = self.armed.iter().position(|(needle, _, times)| {
            *times > 0 && request.windows(needle.len()).any(|window| window == needle.as_slice())
        })?;
        let (_, fault, times) = &mut self.armed[index];
        *times -= 1;
        let fault = *fault;
        self.met += 1;
        if self.armed[index].2 == 0 {
            self.armed.remove(index);
        }
        Some(fault)
    }
}

/// Listens on a port of its own and ends, with all its connections, when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    cut: Arc<Notify>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `upstream`, given as `host:port` or as a URL.
    pub async fn start(upstream: &str) -> Proxy {
        let upstream = upstream.split_once("://").map_or(upstream, |(_, rest)| rest);
        let upstream = upstream.rsplit_once('@').map_or(upstream, |(_, rest)| rest);
        let upstream = upstream.split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(Plan::default()));
        let cut = Arc::new(Notify::new());
        let (shared, cutting) = (plan.clone(), cut.clone());
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (plan, upstream, cut) = (shared.clone(), upstream.clone(), cutting.clone());
                connections.spawn(async move {
                    // Either side ending ends the pair; that is a proxy's ordinary day.
                    let _ = connect(client, &upstream, &plan, &cut).await;
                });
            }
        });
        Proxy { address, plan, cut, accepting }
    }

    /// In front of a Kafka broker at `host:port`, which then names this proxy where it tells clients its address.
    pub async fn kafka(upstream: &str) -> Proxy {
        let proxy = Proxy::start(upstream).await;
        // As its answers spell it: the host, then the port in four bytes.
        let spelled = |host: &str, port: u16| [host.as_bytes(), &u32::from(port).to_be_bytes()].concat();
        let (host, port) = upstream.rsplit_once(':').unwrap();
        let (from, to) = (spelled(host, port.parse().unwrap()), spelled(host, proxy.address.port()));
        proxy.plan.lock().unwrap().rewritten = Some((from, to));
        proxy
    }

    /// The next `times` requests that contain `needle` meet the fault.
    pub fn arm(&self, needle: &str, fault: Fault, times: u32) {
        self.plan.lock().unwrap().armed.push((needle.as_bytes().to_vec(), fault, times));
    }

    /// Resets all connections of this moment.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// No faults from now on.
    pub fn disarm(&self) {
        self.plan.lock().unwrap().armed.clear();
    }

    /// How many requests met a fault.
    pub fn met(&self) -> u32 {
        self.plan.lock().unwrap().met
    }

    /// How many HTTP requests came so far, by method.
    pub fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.plan.lock().unwrap().requests.clone()
    }

    /// Whether all faults were met.
    pub fn spent(&self) -> bool {
        self.plan.lock().unwrap().armed.is_empty()
    }

    /// The address in place of the upstream's in its URL.
    pub fn url(&self, upstream: &str) -> String {
        let (scheme, rest) = upstream.split_once("://").unwrap();
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        let user = authority.rsplit_once('@').map(|(user, _)| format!("{user}@")).unwrap_or_default();
        format!("{scheme}://{user}{}/{path}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connect(mut client: TcpStream, upstream: &str, plan: &Mutex<Plan>, cut: &Notify) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    // What happens to the answer of the request under way.
    let mut pending: Option<Fault> = None;
    loop {
        tokio::select! {
            () = cut.notified() => return reset(&client),
            read = client.read(&mut asked) => {
                let halved;
                let mut request = &asked[..read?];
                if request.is_empty() {
                    return Ok(());
                }
                let hit = {
                    let mut plan = plan.lock().unwrap();
                    plan.count(request);
                    plan.take(request)
                };
                match hit {
                    Some(Fault::Reset) => return reset(&client),
                    Some(Fault::Delay(wait)) => tokio::time::sleep(wait).await,
                    Some(Fault::Refuse(status)) => return answer(client, status, "").await,
                    Some(Fault::Say(status, body)) => return answer(client, status, body).await,
                    Some(Fault::Halve) => {
                        halved = halve(request, &mut client).await?;
                        request = &halved;
                    }
                    Some(fault) => pending = Some(fault),
                    None => {}
                }
                server.write_all(request).await?;
            }
            read = server.read(&mut answered) => {
                let read = read?;
                let response = &mut answered[..read];
                if let Some((from, to)) = &plan.lock().unwrap().rewritten {
                    while let Some(at) = response.windows(from.len()).position(|window| window == from) {
                        response[at..at + to.len()].copy_from_slice(to);
                    }
                }
                match pending {
                    _ if response.is_empty() => return Ok(()),
                    None => client.write_all(response).await?,
                    Some(Fault::Garble(status)) => return answer(client, status, "").await,
                    Some(Fault::Stall) => {}
                    Some(_) => return reset(&client),
                }
            }
        }
    }
}

/// The request, of which this is the beginning, without the first of its changes.
async fn halve(beginning: &[u8], client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = beginning.to_vec();
    let end = request.windows(4).position(|window| window == b"\r\n\r\n").expect("headers come at once") + 4;
    let headers = String::from_utf8(request[..end].to_vec()).unwrap();
    let mut lines: Vec<String> = headers.trim_end().lines().map(str::to_owned).collect();
    let length = lines.iter_mut().find(|line| line.to_ascii_lowercase().starts_with("content-length:")).unwrap();
    let body: usize = length.split_once(':').unwrap().1.trim().parse().unwrap();
    while request.len() < end + body {
        client.read_buf(&mut request).await?;
    }
    let mut changes: serde_json::Value = serde_json::from_slice(&request[end..]).unwrap();
    changes["table-changes"].as_array_mut().unwrap().remove(0);
    let changes = changes.to_string();
    *length = format!("content-length: {}", changes.len());
    Ok(format!("{}\r\n\r\n{changes}", lines.join("\r\n")).into_bytes())
}

/// Closes so that the other side sees a reset instead of an orderly end.
fn reset(client: &TcpStream) -> std::io::Result<()> {
    client.set_zero_linger()
}

async fn answer(mut client: TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    let mut rest = [0; 4096];
    // The whole request must be read first: closing with bytes unread would reset the answer away.
    while let Ok(read) = tokio::time::timeout(Duration::from_millis(100), client.read(&mut rest)).await {
        if read? == 0 {
            return Ok(());
        }
    }
    let length = body.len();
    let text = format!("HTTP/1.1 {status} Asked For\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    client.write_all(text.as_bytes()).await?;
    client.shutdown().await?;
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}

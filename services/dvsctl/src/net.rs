// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl net`: what a node sees of the network. The node makes one request at a time; how many and when is decided here.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use dvs_api::{
    DnsAnswer, DnsRequest, Echo, EchoOutcome, EchoRequest, TcpConnection, TcpOutcome, TcpRequest,
};
use serde::Serialize;

use crate::arguments::{
    DnsArguments, NetCommand, NetPingArguments, Output, ProbeArguments, TargetArguments,
    TcpArguments, TraceArguments,
};
use crate::cluster::{Cluster, Endpoint, Error};
use crate::table::Table;
use crate::{milliseconds, print, Failure};

/// How much longer than the node itself its answer is waited for.
const MARGIN: Duration = Duration::from_secs(10);

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &NetCommand,
) -> Result<ExitCode, Failure> {
    let succeeded = match command {
        NetCommand::Ping(arguments) => {
            ping(&Node::of(cluster, &arguments.probe)?, output, arguments)?
        }
        NetCommand::Trace(arguments) => {
            trace(&Node::of(cluster, &arguments.probe)?, output, arguments)?
        }
        NetCommand::Dns(arguments) => {
            dns(&Node::of(cluster, &arguments.probe)?, output, arguments)?
        }
        NetCommand::Tcp(arguments) => {
            tcp(&Node::of(cluster, &arguments.probe)?, output, arguments)?
        }
    };
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The node that does it.
struct Node {
    endpoint: Endpoint,
    timeout_ms: u64,
}

impl Node {
    fn of(cluster: &Cluster, probe: &ProbeArguments) -> Result<Self, Error> {
        let endpoint = match probe.node {
            Some(node) => cluster.node(node)?,
            None => cluster
                .first(|endpoint| {
                    let _: dvs_api::Version = endpoint.get("/v1/version")?;
                    Ok(endpoint)
                })?
                .clone(),
        };
        Ok(Self { endpoint, timeout_ms: (probe.timeout_s * 1_000.0) as u64 })
    }

    fn ask<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, Error> {
        // A name may have to be looked up twice before.
        let limit = Duration::from_millis(3 * self.timeout_ms) + MARGIN;
        self.endpoint.post_within(path, request, limit)
    }

    fn echo(
        &self,
        TargetArguments { target, .. }: &TargetArguments,
        ip: Option<dvs_api::IpVersion>,
        hops: u8,
        bytes: u16,
        sequence: u16,
    ) -> Result<Echo, Error> {
        let (target, timeout_ms) = (target.clone(), self.timeout_ms);
        let request = EchoRequest { target, ip, hops, bytes, sequence, timeout_ms };
        self.ask("/v1/net/echo", &request)
    }
}

/// What `dvsctl net ping` says at its end.
#[derive(Debug, Serialize)]
struct Pings {
    sent: u16,
    received: u16,
    min_us: Option<u64>,
    mean_us: Option<u64>,
    max_us: Option<u64>,
    echoes: Vec<Echo>,
}

fn ping(node: &Node, output: Output, arguments: &NetPingArguments) -> Result<bool, Failure> {
    let NetPingArguments { target, count, interval_s, bytes, .. } = arguments;
    let mut echoes = Vec::new();
    for sequence in 1..=*count {
        let began = Instant::now();
        let echo = node.echo(target, target.ip(), 64, *bytes, sequence)?;
        if matches!(output, Output::Table | Output::Wide) {
            print(output, &echo, || echoed(&echo))?;
        }
        echoes.push(echo);
        if sequence < *count {
            let interval = Duration::from_secs_f64(*interval_s);
            sleep(interval.saturating_sub(began.elapsed()));
        }
    }
    let pings = counted(echoes);
    print(output, &pings, || summary(&pings))?;
    Ok(pings.received > 0)
}

fn counted(echoes: Vec<Echo>) -> Pings {
    let is_reply = |echo: &&Echo| echo.outcome == EchoOutcome::Reply;
    let times: Vec<u64> = echoes.iter().filter(is_reply).filter_map(|it| it.rtt_us).collect();
    let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    Pings {
        sent: count(echoes.len()),
        received: count(times.len()),
        min_us: times.iter().min().copied(),
        mean_us: (!times.is_empty()).then(|| times.iter().sum::<u64>() / times.len() as u64),
        max_us: times.iter().max().copied(),
        echoes,
    }
}

fn summary(pings: &Pings) -> String {
    let Pings { sent, received, min_us, mean_us, max_us, .. } = pings;
    let lost = 100 * u32::from(sent - received) / u32::from(*sent).max(1);
    let text = format!("{sent} sent, {received} received, {lost} % lost");
    match (min_us, mean_us, max_us) {
        (Some(min), Some(mean), Some(max)) => {
            let [min, mean, max] = [min, mean, max].map(|us| milliseconds(*us as f64));
            format!("{text}; min {min}, mean {mean}, max {max}\n")
        }
        _ => text + "\n",
    }
}

fn echoed(echo: &Echo) -> String {
    let Echo { address, sequence, bytes, from, rtt_us, outcome } = echo;
    let from = from.map_or_else(|| "the node itself".to_owned(), |from| from.to_string());
    let time = rtt_us.map(|us| milliseconds(us as f64)).unwrap_or_default();
    match outcome {
        EchoOutcome::Reply => format!("{sequence}: {bytes} bytes from {from} after {time}\n"),
        EchoOutcome::Expired => {
            format!("{sequence}: {from} says that {address} is too many routers away\n")
        }
        EchoOutcome::Unreachable(why) => format!("{sequence}: {from} says: {why}\n"),
        EchoOutcome::TimedOut => format!("{sequence}: {address} did not answer in time\n"),
    }
}

/// What `dvsctl net trace` says of one distance.
#[derive(Debug, Serialize)]
struct Hop {
    hops: u8,
    echoes: Vec<Echo>,
}

fn trace(node: &Node, output: Output, arguments: &TraceArguments) -> Result<bool, Failure> {
    let TraceArguments { target, max_hops, queries, .. } = arguments;
    let mut trace = Vec::new();
    let mut sequence = 0;
    for hops in 1..=*max_hops {
        let mut echoes = Vec::new();
        for _ in 0..*queries {
            sequence += 1;
            echoes.push(node.echo(target, target.ip(), hops, 56, sequence)?);
        }
        let hop = Hop { hops, echoes };
        if matches!(output, Output::Table | Output::Wide) {
            print(output, &hop, || hopped(&hop))?;
        }
        let over = ended(&hop);
        trace.push(hop);
        if let Some(reached) = over {
            if matches!(output, Output::Json | Output::Yaml) {
                print(output, &trace, String::new)?;
            }
            return Ok(reached);
        }
    }
    print(output, &trace, || format!("not reached over {max_hops} routers\n"))?;
    Ok(false)
}

/// Whether it is over there, and the target was reached.
fn ended(hop: &Hop) -> Option<bool> {
    let any = |is: fn(&EchoOutcome) -> bool| hop.echoes.iter().any(|echo| is(&echo.outcome));
    if any(|outcome| *outcome == EchoOutcome::Reply) {
        return Some(true);
    }
    any(|outcome| matches!(outcome, EchoOutcome::Unreachable(_))).then_some(false)
}

fn hopped(Hop { hops, echoes }: &Hop) -> String {
    let from: BTreeSet<IpAddr> = echoes.iter().filter_map(|echo| echo.from).collect();
    let from: Vec<_> = from.iter().map(ToString::to_string).collect();
    let times = echoes.iter().map(|echo| match (&echo.outcome, echo.rtt_us) {
        (EchoOutcome::Unreachable(why), _) => format!("({why})"),
        (_, Some(us)) => milliseconds(us as f64),
        (_, None) => "*".to_owned(),
    });
    let times = times.collect::<Vec<_>>().join("  ");
    match from.is_empty() {
        true => format!("{hops:>2}  {times}\n"),
        false => format!("{hops:>2}  {}  {times}\n", from.join(" ")),
    }
}

fn dns(node: &Node, output: Output, arguments: &DnsArguments) -> Result<bool, Failure> {
    let DnsArguments { name, kind, server, .. } = arguments;
    let (name, server, timeout_ms) = (name.clone(), server.clone(), node.timeout_ms);
    let request = DnsRequest { name, kind: (*kind).into(), server, timeout_ms };
    let answer: DnsAnswer = node.ask("/v1/net/dns", &request)?;
    print(output, &answer, || answered(&answer))?;
    // A name may be there and lead nowhere: only what was asked for counts.
    let wanted = request.kind.to_string();
    Ok(answer.code == "NOERROR" && answer.records.iter().any(|record| record.kind == wanted))
}

fn answered(answer: &DnsAnswer) -> String {
    let mut table = Table::new(&["NAME", "TTL", "TYPE", "DATA"]);
    for record in &answer.records {
        let (ttl, data) = (record.ttl_s.to_string(), record.data.clone());
        table.row([record.name.clone(), ttl, record.kind.clone(), data]);
    }
    let table = if answer.records.is_empty() { String::new() } else { format!("{table}\n") };
    let by = if answer.tcp { " by TCP" } else { "" };
    let time = milliseconds(answer.rtt_us as f64);
    format!("{table}{} from {}{by} after {time}\n", answer.code, answer.server)
}

fn tcp(node: &Node, output: Output, arguments: &TcpArguments) -> Result<bool, Failure> {
    let TcpArguments { target, port, .. } = arguments;
    let (ip, timeout_ms) = (target.ip(), node.timeout_ms);
    let request = TcpRequest { target: target.target.clone(), port: *port, ip, timeout_ms };
    let connection: TcpConnection = node.ask("/v1/net/tcp", &request)?;
    print(output, &connection, || connected(&connection))?;
    Ok(connection.outcome == TcpOutcome::Connected)
}

fn connected(connection: &TcpConnection) -> String {
    let TcpConnection { address, from, rtt_us, outcome } = connection;
    let time = rtt_us.map(|us| milliseconds(us as f64)).unwrap_or_default();
    match outcome {
        TcpOutcome::Connected => {
            let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
            format!("{address} accepts connections: connected{from} after {time}\n")
        }
        TcpOutcome::Refused => format!("{address} refuses connections, after {time}\n"),
        TcpOutcome::Failed(why) => format!("{address} is not reached: {why}\n"),
        TcpOutcome::TimedOut => format!("{address} did not answer in time\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(sequence: u16, rtt_us: Option<u64>, outcome: EchoOutcome) -> Echo {
        let address = [10, 0, 0, 9].into();
        let from = rtt_us.map(|_| [10, 0, 0, 1].into());
        Echo { address, sequence, bytes: 56, from, rtt_us, outcome }
    }

    #[test]
    fn replies_are_counted_and_what_is_none_is_not() {
        let pings = counted(vec![
            echo(1, Some(1_000), EchoOutcome::Reply),
            echo(2, Some(9_000), EchoOutcome::Unreachable("no route".into())),
            echo(3, Some(4_000), EchoOutcome::Reply),
            echo(4, None, EchoOutcome::TimedOut),
        ]);
        assert_eq!((pings.sent, pings.received, pings.mean_us), (4, 2, Some(2_500)));
        let text = summary(&pings);
        assert!(text.starts_with("4 sent, 2 received, 50 % lost; min 1"), "{text}");
        assert_eq!(
            summary(&counted(vec![echo(1, None, EchoOutcome::TimedOut)])),
            "1 sent, 0 received, 100 % lost\n"
        );
        assert_eq!(echoed(&pings.echoes[1]), "2: 10.0.0.1 says: no route\n");
    }

    #[test]
    fn a_trace_ends_at_the_target_or_where_there_is_no_way() {
        let hop = |outcomes: &[EchoOutcome]| Hop {
            hops: 3,
            echoes: outcomes.iter().map(|it| echo(1, None, it.clone())).collect(),
        };
        use EchoOutcome::{Expired, Reply, TimedOut, Unreachable};
        assert_eq!(ended(&hop(&[Expired, TimedOut])), None);
        assert_eq!(ended(&hop(&[TimedOut, Reply])), Some(true));
        assert_eq!(ended(&hop(&[Unreachable("no route".into())])), Some(false));
        let mixed =
            Hop { hops: 3, echoes: vec![echo(1, Some(2_000), Expired), echo(2, None, TimedOut)] };
        let text = hopped(&mixed);
        assert!(text.starts_with(" 3  10.0.0.1  ") && text.ends_with("  *\n"), "{text}");
    }
}

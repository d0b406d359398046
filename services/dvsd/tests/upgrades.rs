// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole daemons that are upgraded to another image, on machines that pretend to restart with it.

mod fake;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dvs_api::{PowerAction, UpgradePhase, Upgrades};
use fake::{Boot, Segment};
use ureq::Agent;

const NEW: &str = "9.0.0+0123456789ab";
const OLD: &str = env!("CARGO_PKG_VERSION");

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent()
}

type Answer = (u16, String);

fn asked(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = answer.unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

fn put(url: &str, query: &str, bundle: &[u8]) -> Answer {
    let query = format!("canary=1&max_unavailable=1&patience_s=60{query}");
    asked(agent().put(format!("{url}/v1/upgrade?{query}")).send(bundle))
}

fn post(url: &str, what: &str, body: &str) -> Answer {
    asked(agent().post(format!("{url}/v1/upgrade/{what}")).send(body))
}

fn told((code, body): Answer) -> Upgrades {
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Machines, and what restarts those that are asked to.
struct Rack {
    segment: Segment,
    urls: Vec<String>,
    /// Which machines are still to be restarted.
    asked: VecDeque<(u8, PowerAction)>,
    restarted: Vec<u8>,
}

impl Rack {
    fn new(count: u8) -> Self {
        let segment = Segment::new();
        let urls = segment.boot_all(count);
        Self { segment, urls, asked: VecDeque::new(), restarted: Vec::new() }
    }

    /// Restarts a machine that was asked to, if there is one, with what `choose` says that it boots.
    fn restart(&mut self, choose: impl FnOnce(&Segment, u8)) {
        self.asked.extend(self.segment.asked());
        let Some((number, action)) = self.asked.pop_front() else { return };
        assert_eq!(action, PowerAction::Reboot);
        self.segment.kill(number);
        choose(&self.segment, number);
        self.restarted.push(number);
        let (token, expect) = ("the token of this cluster", self.urls.len() as u16);
        let boot = Boot { number, token, expect, dvk: true, insecure: false };
        self.urls[usize::from(number) - 1] = self.segment.boot(&boot);
    }

    /// What any of them says now.
    fn upgrades(&self) -> Option<Upgrades> {
        self.urls.iter().find_map(|url| {
            let mut answer = agent().get(format!("{url}/v1/upgrade")).call().ok()?;
            (answer.status() == 200).then_some(())?;
            serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
        })
    }

    /// Lets time pass until the upgrade is `phase`.
    fn until(&mut self, phase: UpgradePhase, choose: impl Fn(&Segment, u8)) -> Upgrades {
        let start = Instant::now();
        loop {
            self.restart(&choose);
            if let Some(upgrades) = self.upgrades() {
                if upgrades.current.as_ref().is_some_and(|current| current.phase == phase) {
                    return upgrades;
                }
                assert!(start.elapsed() < Duration::from_secs(120), "{upgrades:#?}");
            }
            assert!(start.elapsed() < Duration::from_secs(150), "nobody answers");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn well(segment: &Segment, number: u8) {
    segment.images.start_armed(number);
}

/// As if the new image did not work: the machine boots what it booted before.
fn given_up(segment: &Segment, number: u8) {
    segment.images.armed.lock().unwrap().remove(&number);
}

#[test]
fn nodes_are_upgraded_one_by_one_and_back_again() {
    let mut rack = Rack::new(3);
    let url = rack.urls[1].clone();
    let bundle = rack.segment.images.bundle(NEW);
    // One that restarts before it has been well for a while never confirms the image that it had.
    let confirmed = || rack.segment.images.confirmed.lock().unwrap().len();
    fake::eventually(confirmed, |count| *count == 3);
    let begun = fake::eventually(|| put(&url, "", &bundle), |(code, _)| *code == 200);
    assert_eq!(told(begun).current.unwrap().release, NEW);
    let done = rack.until(UpgradePhase::Complete, well).current.unwrap();
    assert_eq!(done.nodes.len(), 3);
    assert!(done.nodes.iter().all(|node| (node.step.as_str(), node.restarts) == ("done", 1)));
    // Whoever took the bundle in goes last.
    assert_eq!(rack.restarted, [1, 3, 2]);
    for number in 1..=3 {
        assert_eq!(rack.segment.images.of(number), NEW);
        // Once for the image that it had, once for the new one.
        let confirmed = || rack.segment.images.confirmed.lock().unwrap()[&number];
        fake::eventually(confirmed, |count| *count == 2);
    }
    let (code, body) =
        post(&rack.urls[0], "rollback", r#"{"canary":0,"max_unavailable":1,"patience_s":60}"#);
    assert_eq!(code, 409, "what they ran before is in no bundle: {body}");
    let older = rack.segment.images.bundle("8.0.0+ab");
    let (code, body) = put(&rack.urls[0], "", &older);
    assert_eq!(code, 409, "{body}");
    assert!(body.contains("older than 9.0.0+0123456789ab"), "{body}");
    told(put(&rack.urls[0], "&allow_downgrade=true&nodes=2", &older));
    let done = rack.until(UpgradePhase::Complete, well).current.unwrap();
    assert_eq!((done.id, done.nodes.len()), (2, 1));
    assert_eq!(rack.segment.images.of(3), "8.0.0+ab");
    let back = r#"{"canary":0,"max_unavailable":1,"patience_s":60}"#;
    told(post(&rack.urls[0], "rollback", back));
    let done = rack.until(UpgradePhase::Complete, well);
    assert_eq!(done.current.unwrap().release, NEW);
    assert_eq!(done.past.len(), 2);
    assert!((1..=3).all(|number| rack.segment.images.of(number) == NEW));
}

#[test]
fn an_image_that_is_given_up_stops_the_upgrade_until_somebody_resumes_it() {
    let mut rack = Rack::new(3);
    let url = rack.urls[0].clone();
    let bundle = rack.segment.images.bundle(NEW);
    fake::eventually(|| put(&url, "&nodes=1,0,2", &bundle), |(code, _)| *code == 200);
    let paused = rack.until(UpgradePhase::Paused, given_up).current.unwrap();
    let why = paused.why.unwrap();
    assert!(why.contains(&format!("node 1: it came back with {OLD} instead of {NEW}")), "{why}");
    assert_eq!(rack.restarted, [2]);
    let (code, body) = put(&url, "", &bundle);
    assert_eq!(code, 409, "{body}");
    // What it fails for is that its machine takes no image, then.
    rack.segment.images.broken.lock().unwrap().insert(2, "the disk is full".into());
    told(post(&rack.urls[0], "resume", ""));
    let again = |rack: &mut Rack| {
        let upgrades = rack.until(UpgradePhase::Paused, well).current.unwrap();
        upgrades.why.filter(|why| why.contains("node 1: the disk is full"))
    };
    fake::eventually(|| again(&mut rack), Option::is_some);
    assert_eq!(rack.restarted, [2]);
    // It was emptied for that, and is a node like any other again.
    let phase = || {
        let (_, body) = asked(agent().get(format!("{}/v1/nodes/1/standing", rack.urls[0])).call());
        body
    };
    fake::eventually(phase, |body| body.contains(r#""phase":"ready""#));
    rack.segment.images.broken.lock().unwrap().clear();
    told(post(&rack.urls[0], "resume", ""));
    rack.until(UpgradePhase::Complete, well);
    assert!((1..=3).all(|number| rack.segment.images.of(number) == NEW));
}

#[test]
fn what_is_no_bundle_of_ours_is_refused_before_anything_is_agreed_on() {
    let rack = Rack::new(1);
    let url = &rack.urls[0];
    fake::eventually(
        || asked(agent().get(format!("{url}/v1/upgrade")).call()),
        |(code, _)| *code == 200,
    );
    let foreign = fake::upgrades::Images::default().bundle(NEW);
    let mut damaged = rack.segment.images.bundle(NEW);
    *damaged.last_mut().unwrap() ^= 1;
    for (bundle, expected) in [
        (&foreign[..], "no key that is trusted here has signed the bundle"),
        (&damaged, "the image in the bundle is damaged"),
        (b"PK", "it is no upgrade bundle"),
    ] {
        let (code, body) = put(url, "", bundle);
        assert_eq!(code, 400, "{body}");
        assert!(body.contains(expected), "{body}");
    }
    let good = rack.segment.images.bundle(NEW);
    for (query, expected) in [
        ("&nodes=7", "there is no node 7"),
        ("&nodes=x", "`x` is no node id"),
        ("&nodes=0,0", "named twice"),
        ("&whatever=1", "whatever"),
    ] {
        let (code, body) = put(url, query, &good);
        assert!((400..500).contains(&code) && body.contains(expected), "{code} {body}");
    }
    for what in ["pause", "resume", "cancel"] {
        let (code, body) = post(url, what, "");
        assert_eq!((code, body.contains("no upgrade was ever begun")), (404, true), "{body}");
    }
    assert_eq!(rack.upgrades().unwrap().current, None);
}

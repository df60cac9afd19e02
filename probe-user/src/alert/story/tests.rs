//! Alerts as people read them, whole and cut.

use super::*;
use crate::alert::fit;
use crate::alert::notice::tests::notice;
use crate::monitor::Metric;

fn links() -> Links {
    Links { external_url: Some("https://probe.example.org/".into()) }
}

#[test]
fn it_says_what_who_where_and_how_much() {
    let mut alert = notice(42, &["ops"]);
    alert.process.container = Some("c0ffee".into());
    alert.process.pod = Some("checkout-7d9".into());
    alert.process.cpu_percent_of_host = 24.4;
    alert.process.cpu_percent = 97.5;
    alert.labels = [("team".to_owned(), "shop".to_owned())].into();
    let text = Style::PLAIN.compose(&Batch { channel: "ops", notices: &[alert], links: &links() }, 4096);
    assert_eq!(
        text,
        "[FIRING] checkout-cpu: checkout on node\n\
         Value: cpu 97.5 above 80 percent of one core\n\
         Culprit: match_rules went from 0 % to 88 % of the process\n\
         Host: node (192.0.2.7), CPU 31.0 %\n\
         Process: pid 42 /usr/bin/checkout, CPU 97.5 % of one core, 24.4 % of the host\n\
         Container: c0ffee, pod checkout-7d9\n\
         Since: 2023-11-14T22:13:50Z\n\
         Labels: team=shop\n\
         Snapshot: https://probe.example.org/snapshots/01HF7YBW5R0000000000000007"
    );
}

#[test]
fn an_end_shows_no_figures_of_the_beginning_as_if_they_were_present() {
    let mut over = notice(42, &["ops"]).over(Some(12.0));
    over.resolved_at = Some(over.started_at);
    let text = Style::PLAIN.compose(&Batch { channel: "ops", notices: &[over], links: &links() }, 4096);
    assert_eq!(
        text,
        "[RESOLVED] checkout-cpu: checkout on node\n\
         Value: cpu 12.0, no longer 97.5 above 80 percent of one core\n\
         Culprit: match_rules went from 0 % to 88 % of the process\n\
         Host: node (192.0.2.7)\n\
         Process: pid 42 /usr/bin/checkout\n\
         Since: 2023-11-14T22:13:50Z\n\
         Until: 2023-11-14T22:13:50Z\n\
         Snapshot: https://probe.example.org/snapshots/01HF7YBW5R0000000000000007"
    );
}

#[test]
fn without_a_server_the_folder_is_named() {
    let alert = notice(42, &["ops"]);
    let text = Style::PLAIN.compose(&Batch { channel: "ops", notices: &[alert], links: &Links::default() }, 4096);
    assert!(text.ends_with("\nSnapshot: /var/lib/probe/X on node"), "{text}");
}

#[test]
fn the_log_has_it_in_one_line() {
    let alert = notice(42, &["ops"]);
    assert_eq!(
        sentence(&alert, &Links::default()),
        "checkout-cpu: checkout (pid 42 on node): cpu 97.5 above 80 percent of one core: match_rules went from 0 % to \
         88 % of the process; snapshot 01HF7YBW5R0000000000000007 in /var/lib/probe/X"
    );
    let slow = Notice {
        metric: Metric::FunctionP99.name().into(),
        function: Some("push".into()),
        compared: Metric::FunctionP99.compare(20_300_000.0, crate::monitor::Side::Above, 10_000_000.0),
        snapshot: None,
        ..alert.clone()
    };
    let text = sentence(&slow, &Links::default());
    assert!(text.contains("(pid 42 on node): function.p99 of push 20.3ms above 10.0ms: match_rules"), "{text}");
    assert!(text.ends_with("; there is no snapshot"), "{text}");
    let over = Notice { kind: NoticeKind::Resolved, ..alert };
    assert!(sentence(&over, &Links::default()).ends_with("; back to normal"));
}

#[test]
fn every_limit_is_kept_with_the_link() {
    let mut alert = notice(42, &["ops"]);
    alert.culprit = "größer <b> & ".repeat(500);
    let style = Style {
        escape: fit::slack,
        bold: ("*", "*"),
        link: |url, words| format!("<{url}|{words}>"),
        newline: "\n",
        measure: Measure::Bytes,
    };
    let others = [alert.clone(), notice(43, &[]), notice(44, &[])];
    for limit in 0..3000 {
        for notices in [std::slice::from_ref(&alert), &others] {
            let text = style.compose(&Batch { channel: "ops", notices, links: &links() }, limit);
            assert!(text.len() <= limit.max(2 * (notices.len() - 1)), "{limit}: {} bytes", text.len());
            if limit > 110 * notices.len() {
                assert_eq!(text.matches("|Snapshot>").count(), notices.len(), "{limit}: {text}");
            }
        }
    }
}

#[test]
fn of_several_none_is_forgotten() {
    let mut notices = [notice(1, &[]), notice(2, &[]), notice(3, &[])];
    notices[1].kind = NoticeKind::Resolved;
    notices[0].culprit = "x".repeat(5000);
    let batch = Batch { channel: "ops", notices: &notices, links: &links() };
    assert_eq!(batch.title(), "2 firing, 1 resolved");
    let text = Style::PLAIN.compose(&batch, 1500);
    assert!(text.len() <= 1500);
    for pid in 1..=3 {
        assert!(pid == 1 || text.contains(&format!("pid {pid} ")), "{text}");
    }
    assert_eq!(text.matches("Snapshot: https://").count(), 3);
}

#[test]
fn what_is_over_already_is_told_so() {
    let mut brief = notice(42, &["ops"]);
    brief.resolved_at = Some(Timestamp(brief.started_at.0 + 7_400_000_000));
    let text = Style::PLAIN.compose(&Batch { channel: "ops", notices: &[brief.clone()], links: &links() }, 4096);
    assert!(text.starts_with("[FIRED BRIEFLY] checkout-cpu: checkout on node\n"), "{text}");
    assert!(
        text.contains("\nNote: it is over: it lasted 7s\n") && text.contains("\nUntil: 2023-11-14T22:13:57Z"),
        "{text}"
    );
    assert!(sentence(&brief, &Links::default()).ends_with("; it is over: it lasted 7s"));
}

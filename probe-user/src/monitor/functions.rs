//! What the metrics of functions are, from what is known of a function in a process.

use super::metric::Metric;
use crate::latency::SeenRow;

/// The value of a metric; `None` where there is none: without calls no time, and where no probe was set nothing at all.
pub fn of_function(metric: Metric, seen: &SeenRow) -> Option<f64> {
    let SeenRow { row, is_set } = seen;
    let was_set = row.attached_share > 0.0;
    match metric {
        Metric::FunctionP99 => row.p99_ns.map(|time| time as f64),
        Metric::FunctionAvg => row.avg_ns.map(|time| time as f64),
        Metric::FunctionAttainment => row.attainment.map(|share| 100.0 * share),
        Metric::FunctionInFlight => is_set.then_some(row.in_flight as f64),
        Metric::FunctionOldest => row.oldest_ns.filter(|_| *is_set).map(|time| time as f64),
        Metric::FunctionRate => was_set.then_some(row.rate),
        Metric::FunctionErrors if row.calls == 0 => was_set.then_some(0.0),
        Metric::FunctionErrors => was_set.then_some(row.rate * row.errors as f64 / row.calls as f64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Row;

    #[test]
    fn what_is_not_known_has_no_value() {
        let values = |seen: &SeenRow| {
            let of_functions = Metric::ALL.iter().filter(|metric| metric.is_of_function());
            of_functions.map(|metric| of_function(*metric, seen)).collect::<Vec<_>>()
        };
        let busy = Row {
            calls: 200,
            rate: 20.0,
            errors: 10,
            avg_ns: Some(5),
            p99_ns: Some(9),
            attainment: Some(0.75),
            in_flight: 2,
            oldest_ns: Some(7),
            attached_share: 0.5,
            ..Row::default()
        };
        let some = [9.0, 5.0, 75.0, 2.0, 7.0, 20.0, 1.0].map(Some);
        assert_eq!(values(&SeenRow { row: busy.clone(), is_set: true }), some);
        let mut away = some;
        (away[3], away[4]) = (None, None);
        assert_eq!(values(&SeenRow { row: busy, is_set: false }), away, "nobody sees them return");
        let silent = Row { attached_share: 1.0, ..Row::default() };
        let none = [None, None, None, Some(0.0), None, Some(0.0), Some(0.0)];
        assert_eq!(values(&SeenRow { row: silent, is_set: true }), none);
        assert_eq!(values(&SeenRow::default()), [None; 7]);
    }
}

//! How a budget is shared among the processes of a target.

/// What each of some processes may cost, so that all together stay within a budget, when these are what they would cost
/// without a bound: those that cost less than their share leave the rest to the others (max-min fairness). Whoever is new
/// costs anything.
pub fn share(budget: f64, loads: impl IntoIterator<Item = f64>) -> f64 {
    let mut loads: Vec<f64> = loads.into_iter().collect();
    loads.sort_by(f64::total_cmp);
    let (mut rest, mut others) = (budget, loads.len());
    for load in loads {
        if load > rest / others as f64 {
            return rest / others as f64;
        }
        rest -= load;
        others -= 1;
    }
    // All fit. What is left may be needed by any of them, for as long as nobody looks again.
    budget
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_processes_leave_their_share_to_busy_ones() {
        let is = |loads: &[f64], expected: f64| {
            let found = share(0.05, loads.iter().copied());
            assert!((found - expected).abs() < 1e-12, "{loads:?}: {found}");
        };
        is(&[], 0.05);
        is(&[f64::INFINITY], 0.05);
        is(&[f64::INFINITY, f64::INFINITY], 0.025);
        is(&[0.0, 2.0, 0.0, 0.01], 0.04);
        is(&[0.01, 0.02], 0.05);
    }
}

//! What is right of `[[function]]`, and of the rules that look at one.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;

use super::raw::{self, Scalar};
use super::validate::{Check, Checked};
use super::{Target, thresholds};
use crate::latency::{Definition, ErrorTest};
use crate::monitor::{ANY_TARGET, Metric};

/// What timing functions may cost a target, in percent of one core.
const MAX_OVERHEAD: f64 = 1.0;

impl Check<'_> {
    pub(super) fn max_overhead(&self, value: Option<&Spanned<Scalar>>) -> Checked<f64> {
        let Some(value) = value else { return Ok(MAX_OVERHEAD / 100.0) };
        let text = &value.get_ref().0;
        let percent = thresholds::number(text, &["%"]).filter(|percent| *percent > 0.0 && *percent <= 10_000.0);
        let wrong = || format!("`max_overhead` is a number of percent of one core above 0, not `{text}`");
        percent.map(|percent| percent / 100.0).ok_or_else(|| self.error(&value.span(), wrong()))
    }

    pub(super) fn function(
        &self,
        table: &Spanned<raw::Function>,
        names: &mut BTreeSet<String>,
        targets: &[Target],
    ) -> Checked<Definition> {
        let raw::Function { name, group, target, symbol, threshold, errors } = table.get_ref();
        let name = self.name("[[function]]", &table.span(), name.as_ref(), names)?;
        let target = self.required("[[function]]", "target", &table.span(), target.as_ref())?;
        self.known("target", target, targets.iter().map(|target| target.name.as_str()))?;
        let symbol = self.required("[[function]]", "symbol", &table.span(), symbol.as_ref())?;
        let test = |errors: &Spanned<String>| {
            errors.get_ref().parse::<ErrorTest>().map_err(|error| self.error(&errors.span(), error))
        };
        let time = |time: &Spanned<Scalar>| self.duration(Some(time), Default::default());
        let function = Definition {
            name,
            group: group.as_ref().map(|group| crate::text::sanitize(group.get_ref())).unwrap_or_default(),
            target: target.get_ref().clone(),
            symbol: symbol.get_ref().clone(),
            threshold: threshold.as_ref().map(time).transpose()?,
            errors: errors.as_ref().map(test).transpose()?,
        };
        function.check().map_err(|error| self.error(&symbol.span(), format!("{error:#}")))?;
        Ok(function)
    }

    /// The function that a rule names, where its metric needs one.
    pub(super) fn function_of_rule(
        &self,
        table: &Range<usize>,
        function: Option<&Spanned<String>>,
        metric: Metric,
        target: &str,
        functions: &[Definition],
    ) -> Checked<Option<String>> {
        let name = metric.name();
        let Some(function) = function.filter(|_| metric.is_of_function()) else {
            return match function {
                Some(function) => Err(self.error(&function.span(), format!("`{name}` is not a metric of a function"))),
                None if metric.is_of_function() => {
                    Err(self.error(table, format!("[[rule]] needs `function`: `{name}` is the metric of one")))
                }
                None => Ok(None),
            };
        };
        self.known("function", function, functions.iter().map(|function| function.name.as_str()))?;
        let Some(definition) = functions.iter().find(|known| known.name == *function.get_ref()) else {
            return Ok(None);
        };
        let missing = match metric {
            _ if target == ANY_TARGET => {
                format!("`{name}` is of a function of the target `{}`: name that as `target`", definition.target)
            }
            _ if definition.target != target => {
                format!("`{}` is a function of the target `{}`, not of `{target}`", definition.name, definition.target)
            }
            Metric::FunctionAttainment if definition.threshold.is_none() => {
                format!("`{name}` needs a `threshold` of the [[function]] `{}`", definition.name)
            }
            Metric::FunctionErrors if definition.errors.is_none() => {
                format!("`{name}` needs `errors` of the [[function]] `{}`", definition.name)
            }
            _ => return Ok(Some(definition.name.clone())),
        };
        Err(self.error(&function.span(), missing))
    }
}

//! Patching by running again only what each patch reaches.

use ironlens_tensor::{DType, Device, Tensor};
use ironlens_transformer::{Change, LogitsAt, Reached, Rerun, Site};

use super::{PatchOptions, Patching, Setter};
use crate::error::LensError;
use crate::metric::Metric;

pub(super) fn run(
    session: &Patching<'_>,
    rerun: &Rerun<'_>,
    site: Site,
    cells: &[Vec<usize>],
    setter: &Setter<'_>,
    options: &mut PatchOptions<'_>,
) -> Result<Vec<f64>, LensError> {
    let Patching { clean, metric, .. } = session;
    let mut values = vec![0.0; cells.len()];
    let mut pending = Pending::default();
    let mut done = 0;
    for (at, cell) in cells.iter().enumerate() {
        let layer = cell[0];
        if pending.layer != Some(layer) || pending.rows >= options.max_rows {
            done += pending.flush(rerun, site, metric, &mut values)?;
            options.tell(done, cells.len());
            pending.layer = Some(layer);
        }
        let before = rerun.activation(site, layer)?;
        let mut after = before.clone();
        let clean = clean.get((site.name(), layer))?;
        setter(cell, &mut after, clean);
        if after.shape() != before.shape() {
            return Err(LensError::argument(
                "a patched activation of shape",
                format!("{:?}", after.shape()),
                format!("{:?}, as before the patch", before.shape()),
            ));
        }
        let changes = differences(site, before, &after);
        let (_, pos) = rerun.sizes();
        pending.rows += changes.iter().map(|c| pos - c.start).sum::<usize>();
        pending.cells.push((at, changes));
    }
    done += pending.flush(rerun, site, metric, &mut values)?;
    options.tell(done, cells.len());
    Ok(values)
}

/// The rows of `after` from the first to the last that differ from `before`, for each sequence.
fn differences(site: Site, before: &Tensor, after: &Tensor) -> Vec<Change> {
    let axis = site.row_axis();
    if before.shares_memory(after) {
        return Vec::new();
    }
    let mut changes = Vec::new();
    for item in 0..before.dim(0) {
        let rows = |t: &Tensor| {
            // Rows first: [pos, ..].
            let one = t.select(0, item);
            if axis == 2 { one.permute(&[1, 0, 2]) } else { one }
        };
        let (old, new) = (rows(before).contiguous(), rows(after).contiguous());
        let differs = differing_rows(&old, &new);
        let (Some(start), Some(end)) = (differs.iter().position(|d| *d), differs.iter().rposition(|d| *d)) else {
            continue;
        };
        changes.push(Change { item, start, rows: new.narrow(0, start, end + 1 - start) });
    }
    changes
}

/// Whether each row of the first axis differs anywhere.
fn differing_rows(old: &Tensor, new: &Tensor) -> Vec<bool> {
    let rows = old.dim(0);
    let width = old.numel() / rows.max(1);
    fn differ<T: PartialEq>(old: &[T], new: &[T], width: usize) -> Vec<bool> {
        old.chunks(width.max(1)).zip(new.chunks(width.max(1))).map(|(a, b)| a != b).collect()
    }
    match (old.dtype(), &old.device()) {
        (DType::F32, Device::Cpu) => {
            let (old, new) = (old.view(), new.view());
            let dense = "contiguous tensors lie densely";
            differ(old.as_slice().expect(dense), new.as_slice().expect(dense), width)
        }
        _ => differ(&old.to_vec_f64(), &new.to_vec_f64(), width),
    }
}

/// Cells of one layer that wait to be run together.
#[derive(Default)]
struct Pending {
    layer: Option<usize>,
    cells: Vec<(usize, Vec<Change>)>,
    rows: usize,
}

impl Pending {
    /// Runs them; gives how many there were.
    fn flush(
        &mut self,
        rerun: &Rerun<'_>,
        site: Site,
        metric: &Metric<'_>,
        values: &mut [f64],
    ) -> Result<usize, LensError> {
        let (cells, Some(layer)) = (std::mem::take(&mut self.cells), self.layer) else { return Ok(0) };
        self.rows = 0;
        let all: Vec<Change> = cells.iter().flat_map(|(_, changes)| changes.iter().cloned()).collect();
        let mut reached = match all.is_empty() {
            true => Vec::new(),
            false => rerun.run(site, layer, &all, metric.positions())?,
        }
        .into_iter();
        let last = last_of(rerun.logits(), metric.positions());
        for (at, changes) in &cells {
            let mut logits = last.clone();
            for change in changes {
                let new = reached.next().expect("every change has a result");
                put(&mut logits, change.item, &new, metric.positions(), rerun.sizes().1);
            }
            values[*at] = metric.of(&logits);
        }
        Ok(cells.len())
    }
}

/// The logits that a metric reads, `[batch, pos or 1, d_vocab_out]`.
fn last_of(logits: &Tensor, positions: LogitsAt) -> Tensor {
    match positions {
        LogitsAt::All => logits.clone(),
        LogitsAt::Last => logits.narrow(1, logits.dim(1) - 1, 1).contiguous(),
    }
}

fn put(logits: &mut Tensor, item: usize, new: &Reached, positions: LogitsAt, pos: usize) {
    let (mut start, mut values) = (new.start, new.logits.clone());
    if positions == LogitsAt::Last {
        // Of rows that end elsewhere, the last is not among those read.
        let end = start + values.dim(0);
        if values.dim(0) == 0 || end < pos {
            return;
        }
        values = values.narrow(0, values.dim(0) - 1, 1);
        start = 0;
    }
    if values.dim(0) > 0 {
        let len = values.dim(0);
        logits.assign(|l| l.select(0, item).narrow(0, start, len), &values);
    }
}

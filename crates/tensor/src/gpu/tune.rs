//! Which tile a product takes on this device: a table, or what was measured on request.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::Gpu;
use super::backend::Ops;
use super::context::choice;
use super::matmul::{COOPERATIVE, Class, Epilogue, Product, TILES, Tile, Transposition};
use crate::{DType, Device, Rng, Tensor};

/// The variable that asks for tuning: `1` reads what an earlier tuning of this device wrote, or tunes
/// and writes; `again` tunes anew.
pub const TUNE_VARIABLE: &str = "IRONLENS_AUTOTUNE";

/// Larger products are not tried once one has taken this long.
const LONG: Duration = Duration::from_millis(250);
/// Runs of each tile, of which the fastest counts.
const RUNS: usize = 3;

/// What was measured, if it was; else the usual tiles.
#[derive(Default)]
pub(super) struct Tiles {
    measured: Mutex<HashMap<Class, Tile>>,
    /// Tiles by matrix instructions that have made on this device what plain ones make.
    trusted: Mutex<Vec<Tile>>,
}

impl Tiles {
    fn measured(&self) -> MutexGuard<'_, HashMap<Class, Tile>> {
        self.measured.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn trusted(&self) -> MutexGuard<'_, Vec<Tile>> {
        self.trusted.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Lets products take a tile by matrix instructions.
    pub fn trust(&self, tile: Tile) {
        self.trusted().push(tile);
    }

    /// Whether products may take a tile.
    pub fn may_take(&self, tile: Tile) -> bool {
        !tile.is_cooperative() || self.trusted().contains(&tile)
    }

    /// Whether it may take any tile by matrix instructions.
    pub fn trusts_any(&self) -> bool {
        !self.trusted().is_empty()
    }

    pub fn of(&self, class: Class) -> Tile {
        let measured = self.measured().get(&class).copied();
        measured.unwrap_or_else(|| if self.may_take(COOPERATIVE) { COOPERATIVE } else { class.plain() })
    }
}

/// The tile of a kind of product on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileChoice {
    /// `nn`, `nt` or `tn`: whether the left and the right operand lie transposed.
    pub order: &'static str,
    /// The smallest result of this kind, in pieces of 64 x 64 (those of a batch counted together).
    pub from: usize,
    /// Rows x columns x inner / rows x columns of a thread; `simd`: of a SIMD group, by matrix instructions.
    pub tile: String,
    /// Whether it was measured on this device.
    pub measured: bool,
}

fn classes() -> impl Iterator<Item = Class> {
    Transposition::ALL
        .into_iter()
        .flat_map(|order| (0..=Class::LARGEST).map(move |doublings| Class { order, doublings }))
}

/// The whole table.
pub(super) fn choices(tiles: &Tiles) -> Vec<TileChoice> {
    classes()
        .map(|class| TileChoice {
            order: class.order.name(),
            from: 1 << class.doublings,
            tile: tiles.of(class).to_string(),
            measured: tiles.measured().contains_key(&class),
        })
        .collect()
}

/// Does what [`TUNE_VARIABLE`] asks for. A table that cannot be kept on disk is used all the same.
pub(super) fn tune_if_asked(gpu: &Gpu) -> Result<(), String> {
    let again = match choice(TUNE_VARIABLE, &["0", "1", "again"])? {
        Some("1") => false,
        Some("again") => true,
        _ => return Ok(()),
    };
    let ops = &gpu.ops;
    gpu.check_matrices(&TILES);
    let file = cache_file(&ops.0.name);
    let known = file.as_deref().filter(|_| !again).and_then(read);
    let known = known.filter(|table| table.values().all(|tile| ops.0.tiles.may_take(*tile)));
    let table = match known {
        Some(table) => table,
        None => {
            let table = measure(ops, &Device::Gpu(gpu.clone()));
            if let Some(file) = &file {
                // Without the file, the next start measures again.
                let _ = write(file, &table);
            }
            table
        }
    };
    *ops.0.tiles.measured() = table;
    Ok(())
}

/// The fastest tile of each class.
fn measure(ops: &Ops, device: &Device) -> HashMap<Class, Tile> {
    const INNER: usize = 256;
    let mut table = HashMap::new();
    for order in Transposition::ALL {
        let mut last = None;
        for doublings in 0..=Class::LARGEST {
            let class = Class { order, doublings };
            let (m, n) = (64 << doublings.div_ceil(2), 64 << (doublings / 2));
            if let Some((tile, time)) = last
                && time > LONG
            {
                table.insert(class, tile);
                continue;
            }
            let matrix = |rows, cols, turned| -> Tensor {
                let shape = if turned { [1, 1, 1, cols, rows] } else { [1, 1, 1, rows, cols] };
                let x = Rng::new(1, 0).normal(&shape, 0.0, 1.0, &Device::Cpu).to_device(device);
                if turned { x.transpose(3, 4) } else { x }
            };
            let a = matrix(m, INNER, order == Transposition::LeftTransposed);
            let b = matrix(INNER, n, order == Transposition::RightTransposed);
            let out = Tensor::zeros(&[1, 1, 1, m, n], DType::F32, device);
            let product = Product { a, b, out, epilogue: Epilogue::None, extras: Vec::new(), spec: None };
            let run = |tile| {
                let start = Instant::now();
                product.run_with(ops, tile);
                ops.0.finish();
                start.elapsed()
            };
            let best = |tile| {
                run(tile);
                (0..RUNS).map(|_| run(tile)).min().expect("there is a run")
            };
            let able = TILES.into_iter().filter(|tile| ops.0.tiles.may_take(*tile));
            last = able.map(|tile| (tile, best(tile))).min_by_key(|(_, time)| *time);
            table.extend(last.map(|(tile, _)| (class, tile)));
        }
    }
    table
}

/// Where the table of an adapter is kept; `None` if no folder for caches is known.
fn cache_file(adapter: &str) -> Option<PathBuf> {
    let folder = |variable: &str| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = folder("XDG_CACHE_HOME").or_else(|| match () {
        () if cfg!(target_os = "macos") => folder("HOME").map(|home| home.join("Library/Caches")),
        () if cfg!(windows) => folder("LOCALAPPDATA"),
        () => folder("HOME").map(|home| home.join(".cache")),
    })?;
    let name: String = adapter.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Some(base.join("ironlens").join(format!("tiles-{name}.txt")))
}

/// The first line of the file: other versions have other tiles.
fn heading() -> String {
    format!("tiles of products, ironlens {}", env!("CARGO_PKG_VERSION"))
}

/// A whole table, or `None`: of a file that is cut short or of another version nothing is used.
fn read(file: &Path) -> Option<HashMap<Class, Tile>> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut lines = text.lines();
    if lines.next()? != heading() {
        return None;
    }
    let line = |line: &str| {
        let [order, doublings, tile] = *line.split(' ').collect::<Vec<_>>() else { return None };
        let order = Transposition::ALL.into_iter().find(|o| o.name() == order)?;
        let tile = TILES.into_iter().find(|t| t.to_string() == tile)?;
        Some((Class { order, doublings: doublings.parse().ok()? }, tile))
    };
    let table: HashMap<Class, Tile> = lines.map(line).collect::<Option<_>>()?;
    classes().all(|class| table.contains_key(&class)).then_some(table)
}

/// Whole or not at all, so that nobody reads half of it.
fn write(file: &Path, table: &HashMap<Class, Tile>) -> std::io::Result<()> {
    let mut text = heading() + "\n";
    for class in classes() {
        if let Some(tile) = table.get(&class) {
            text += &format!("{} {} {tile}\n", class.order.name(), class.doublings);
        }
    }
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    ironlens_files::write_atomically(file, text.as_bytes()).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs an adapter"]
    fn tuning_finds_a_tile_for_every_class() {
        let device = Device::gpu().expect("an adapter; IRONLENS_ADAPTER may name a software one");
        let Device::Gpu(gpu) = &device else { unreachable!("a GPU was asked for") };
        let table = measure(&gpu.ops, &device);
        assert!(classes().all(|class| table.contains_key(&class)));
    }

    #[test]
    fn a_table_is_read_as_it_was_written_or_not_at_all() {
        let folder = std::env::temp_dir().join(format!("ironlens-tiles-{}", std::process::id()));
        let file = folder.join("cache").join("tiles.txt");
        let table: HashMap<Class, Tile> =
            classes().enumerate().map(|(i, class)| (class, TILES[i % TILES.len()])).collect();
        assert_eq!(read(&file), None);
        write(&file, &table).unwrap();
        assert_eq!(read(&file), Some(table));
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, &text[..text.len() - 20]).unwrap();
        assert_eq!(read(&file), None, "cut short");
        std::fs::write(&file, text.replace("ironlens", "another")).unwrap();
        assert_eq!(read(&file), None, "of another version");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

//! Axes by name: `einsum`, and einops' `rearrange`, `reduce` and `repeat`, for tensors and variables
//! alike.
//!
//! ```
//! use ironlens_tensor::einops::{Reduction, einsum, rearrange, reduce, repeat};
//! # use ironlens_tensor::{DType, Device, Tensor};
//! # let (b, n, h, e) = (2, 5, 4, 3);
//! # let x = Tensor::ones(&[b, n, h * e], DType::F32, &Device::Cpu);
//! let q = rearrange(&x, "b n (h e) -> b n h e", &[("h", 4)]);         // heads apart
//! let scores = einsum("b q h e, b k h e -> b h q k", &[&q, &q]);      // or "bqhe,bkhe->bhqk"
//! assert_eq!(scores.shape(), [2, 4, 5, 5]);
//! let mean = reduce(&scores, "b h q k -> q k", Reduction::Mean, &[]);
//! let again = repeat(&mean, "q k -> copy q k", &[("copy", 3)]);
//! assert_eq!(again.shape(), [3, 5, 5]);
//! ```
//!
//! Names are words between spaces. In `einsum`, a formula without spaces within its terms names
//! each axis by one letter. `...` stands for any axes, counted from the last.

use std::fmt::Write;

/// What the functions here need: implemented by `Tensor` and `Var`.
pub trait Array: Clone {
    /// Length of every axis.
    fn shape(&self) -> &[usize];
    /// The same elements under another shape.
    fn reshape(&self, shape: &[usize]) -> Self;
    /// Axes in the order `axes`.
    fn permute(&self, axes: &[usize]) -> Self;
    /// Repeated to `shape`, by numpy's rules.
    fn expand(&self, shape: &[usize]) -> Self;
    /// The diagonal of the last two axes.
    fn diagonal(&self) -> Self;
    /// Matrix product over the last two axes; leading axes broadcast.
    fn matmul(&self, right: &Self) -> Self;
    /// Product by elements, which broadcast.
    fn mul(&self, right: &Self) -> Self;
    /// Reduced over `axes`, which go.
    fn reduce(&self, by: Reduction, axes: &[usize]) -> Self;
}

/// How [`reduce`] joins elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

/// Sums of products over named axes: `"b q h e, b k h e -> b h q k"` (or `"bqhe,bkhe->bhqk"`)
/// multiplies where names agree and sums over what the result does not name. Two arrays are one
/// matrix product; more are multiplied from left to right, each name summed over as soon as no later
/// one has it. A name twice in one term takes the diagonal (`"i i ->"` is the trace).
///
/// # Panics
/// If the formula cannot be read, or does not fit the shapes.
#[track_caller]
pub fn einsum<T: Array>(formula: &str, arrays: &[&T]) -> T {
    match try_einsum(formula, arrays) {
        Ok(y) => y,
        Err(why) => panic!("einsum \"{formula}\" of {}: {why}", shapes_of(arrays)),
    }
}

/// Axes in another order, split and joined: `"b n (h e) -> b h n e"`. One length of each split may
/// be left open; the others are in `lengths`.
///
/// # Panics
/// If the pattern cannot be read, or does not fit the shape.
#[track_caller]
pub fn rearrange<T: Array>(x: &T, pattern: &str, lengths: &[(&str, usize)]) -> T {
    run("rearrange", x, pattern, lengths, None, false)
}

/// As [`rearrange`], and what the right side does not name is reduced: `"b n d -> b d"`.
///
/// # Panics
/// If the pattern cannot be read, or does not fit the shape.
#[track_caller]
pub fn reduce<T: Array>(x: &T, pattern: &str, by: Reduction, lengths: &[(&str, usize)]) -> T {
    run("reduce", x, pattern, lengths, Some(by), false)
}

/// As [`rearrange`], and what only the right side names is repeated: `"n d -> b n d"` with
/// `&[("b", 4)]`.
///
/// # Panics
/// If the pattern cannot be read, or does not fit the shape.
#[track_caller]
pub fn repeat<T: Array>(x: &T, pattern: &str, lengths: &[(&str, usize)]) -> T {
    run("repeat", x, pattern, lengths, None, true)
}

#[track_caller]
fn run<T: Array>(
    op: &str,
    x: &T,
    pattern: &str,
    lengths: &[(&str, usize)],
    by: Option<Reduction>,
    new_names: bool,
) -> T {
    match try_run(x, pattern, lengths, by, new_names) {
        Ok(y) => y,
        Err(why) => panic!("{op} \"{pattern}\" of shape {:?} with lengths {lengths:?}: {why}", x.shape()),
    }
}

fn shapes_of<T: Array>(arrays: &[&T]) -> String {
    let mut text = String::from(if arrays.len() == 1 { "shape" } else { "shapes" });
    for (i, x) in arrays.iter().enumerate() {
        let _ = write!(text, "{} {:?}", if i > 0 { " and" } else { "" }, x.shape());
    }
    text
}

// ---- einsum -----------------------------------------------------------------------------

/// `...`
const REST: &str = "...";

/// The names of one term, in its order. With `letters`, each letter is a name.
fn names_of(term: &str, letters: bool) -> Result<Vec<String>, String> {
    if !letters {
        return term.split_whitespace().map(checked_name).collect();
    }
    let mut names = Vec::new();
    let mut left = term.trim();
    while let Some(first) = left.chars().next() {
        let len = if left.starts_with(REST) { REST.len() } else { first.len_utf8() };
        names.push(checked_name(&left[..len])?);
        left = &left[len..];
    }
    Ok(names)
}

fn checked_name(name: &str) -> Result<String, String> {
    let good = name == REST || name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if good { Ok(name.to_string()) } else { Err(format!("`{name}` is no name of an axis")) }
}

/// `...` written out as names that stand for axes counted from the last, so that they align.
fn without_rest(names: Vec<String>, rest: usize) -> Vec<String> {
    let written = |name: String| match name == REST {
        true => (0..rest).rev().map(|i| format!("...{i}")).collect(),
        false => vec![name],
    };
    names.into_iter().flat_map(written).collect()
}

/// The names of each axis of `shape`.
fn names_for(names: Vec<String>, shape: &[usize]) -> Result<Vec<String>, String> {
    let rests = names.iter().filter(|n| *n == REST).count();
    if rests > 1 {
        return Err("`...` stands twice in one term".to_string());
    }
    let named = names.len() - rests;
    if named > shape.len() || (rests == 0 && named < shape.len()) {
        return Err(format!("`{}` does not name the {} axes of shape {shape:?}", names.join(" "), shape.len()));
    }
    Ok(without_rest(names, shape.len() - named))
}

/// An array and the names of its axes.
struct Named<T> {
    array: T,
    names: Vec<String>,
}

impl<T: Array> Named<T> {
    fn length(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name).map(|a| self.array.shape()[a])
    }

    /// Names that come more than once taken along the diagonal.
    fn without_doubles(mut self) -> Result<Self, String> {
        let double = |names: &[String]| {
            (0..names.len()).find_map(|j| names[..j].iter().position(|n| *n == names[j]).map(|i| (i, j)))
        };
        while let Some((i, j)) = double(&self.names) {
            let (a, b) = (self.array.shape()[i], self.array.shape()[j]);
            if a != b {
                return Err(format!("`{}` is {a} and {b} in one term", self.names[i]));
            }
            let order: Vec<usize> = (0..self.names.len()).filter(|&a| a != i && a != j).chain([i, j]).collect();
            self.array = self.array.permute(&order).diagonal();
            // A name may come a third time: two axes are joined at once.
            let name = self.names.remove(j);
            self.names.remove(i);
            self.names.push(name);
        }
        Ok(self)
    }

    /// Summed over the names that `wanted` does not want.
    fn summed(self, wanted: impl Fn(&String) -> bool) -> Self {
        let axes: Vec<usize> = (0..self.names.len()).filter(|&a| !wanted(&self.names[a])).collect();
        if axes.is_empty() {
            return self;
        }
        let array = self.array.reduce(Reduction::Sum, &axes);
        Named { array, names: self.names.into_iter().filter(wanted).collect() }
    }

    /// Axes in the order of `names`, which are all of them.
    fn ordered<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> T {
        let at = |name: &String| self.names.iter().position(|n| n == name).expect("a name that the array has");
        let order: Vec<usize> = names.into_iter().map(at).collect();
        if order.iter().enumerate().all(|(i, &a)| i == a) { self.array.clone() } else { self.array.permute(&order) }
    }
}

fn try_einsum<T: Array>(formula: &str, arrays: &[&T]) -> Result<T, String> {
    let (left, right) = formula.split_once("->").ok_or("it needs a `->` before the names of the result")?;
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != arrays.len() || arrays.is_empty() {
        return Err(format!("it has {} terms for {} arrays", terms.len(), arrays.len()));
    }
    let letters = !terms.iter().chain([&right]).any(|t| t.trim().contains(char::is_whitespace));
    let mut operands = Vec::new();
    for (term, array) in terms.iter().zip(arrays) {
        let names = names_for(names_of(term, letters)?, array.shape())?;
        operands.push(Named { array: (*array).clone(), names }.without_doubles()?);
    }
    let rest = operands.iter().flat_map(|o| &o.names).filter(|n| n.starts_with(REST));
    let rest = rest.collect::<std::collections::BTreeSet<_>>().len();
    let result = without_rest(names_of(right, letters)?, rest);
    for (i, name) in result.iter().enumerate() {
        if result[..i].contains(name) {
            return Err(format!("the result names `{name}` twice"));
        }
        if !operands.iter().any(|o| o.names.contains(name)) {
            return Err(format!("the result names `{name}`, which no term does"));
        }
    }
    for (j, b) in operands.iter().enumerate() {
        for (i, a) in operands[..j].iter().enumerate() {
            for name in &a.names {
                match (a.length(name), b.length(name)) {
                    (Some(m), Some(n)) if m != n => {
                        return Err(format!("`{name}` is {m} in term {} and {n} in term {}", i + 1, j + 1));
                    }
                    _ => {}
                }
            }
        }
    }
    let mut operands = operands.into_iter();
    let mut all = operands.next().expect("there is one term at least");
    while let Some(next) = operands.next() {
        // What later terms name is not summed over yet.
        let later = operands.as_slice().iter().flat_map(|o| &o.names);
        let wanted: Vec<String> = result.iter().chain(later).cloned().collect();
        all = product(all, next, &wanted);
    }
    Ok(all.summed(|n| result.contains(n)).ordered(&result))
}

/// The product of two terms with those of their axes that `result` names, in some order.
fn product<T: Array>(a: Named<T>, b: Named<T>, result: &[String]) -> Named<T> {
    let a = {
        let others = b.names.clone();
        a.summed(|n| result.contains(n) || others.contains(n))
    };
    let b = {
        let others = a.names.clone();
        b.summed(|n| result.contains(n) || others.contains(n))
    };
    // Names of both are kept or summed over; names of one are kept.
    let pick = |from: &Named<T>, other: &Named<T>, shared: bool, kept: bool| -> Vec<String> {
        let fits = |n: &&String| other.names.contains(*n) == shared && result.contains(*n) == kept;
        from.names.iter().filter(fits).cloned().collect()
    };
    let (batch, inner) = (pick(&a, &b, true, true), pick(&a, &b, true, false));
    let (rows, columns) = (pick(&a, &b, false, true), pick(&b, &a, false, true));
    let lengths = |x: &Named<T>, names: &[String]| -> Vec<usize> {
        names.iter().map(|n| x.length(n).expect("a name that the array has")).collect()
    };
    let (b_len, k_len) = (lengths(&a, &batch), lengths(&a, &inner));
    let (m_len, n_len) = (lengths(&a, &rows), lengths(&b, &columns));
    let count = |lengths: &[usize]| lengths.iter().product::<usize>();
    let names: Vec<String> = batch.iter().chain(&rows).chain(&columns).cloned().collect();

    if inner.is_empty() || (rows.is_empty() && columns.is_empty()) {
        // No product of matrices: [batch.., rows.., 1.., inner..] by [batch.., 1.., columns.., inner..].
        let ones = |n: usize| vec![1; n];
        let x = a.ordered(batch.iter().chain(&rows).chain(&inner));
        let x = x.reshape(&[&b_len[..], &m_len, &ones(n_len.len()), &k_len].concat());
        let y = b.ordered(batch.iter().chain(&columns).chain(&inner));
        let y = y.reshape(&[&b_len[..], &ones(m_len.len()), &n_len, &k_len].concat());
        let product = x.mul(&y);
        let axes: Vec<usize> = (names.len()..names.len() + inner.len()).collect();
        let array = if inner.is_empty() { product } else { product.reduce(Reduction::Sum, &axes) };
        return Named { array, names };
    }
    // [batch.., m, k] by [batch.., k, n]; axes of the batch stay apart, so that views are not copied.
    let x = a.ordered(batch.iter().chain(&rows).chain(&inner));
    let x = x.reshape(&[&b_len[..], &[count(&m_len), count(&k_len)]].concat());
    let y = b.ordered(batch.iter().chain(&inner).chain(&columns));
    let y = y.reshape(&[&b_len[..], &[count(&k_len), count(&n_len)]].concat());
    let array = x.matmul(&y).reshape(&[&b_len[..], &m_len, &n_len].concat());
    Named { array, names }
}

// ---- einops -----------------------------------------------------------------------------

/// What one side of a pattern says of one axis of the array, or of several.
enum Group {
    /// One axis, of these names joined; of length 1 if there are none.
    Axis(Vec<String>),
    /// A `...` outside of parentheses: an axis each.
    Rest,
}

impl Group {
    /// How often `...` stands in it.
    fn rests(&self) -> usize {
        match self {
            Group::Axis(names) => names.iter().filter(|n| *n == REST).count(),
            Group::Rest => 1,
        }
    }

    /// Whether it stands for as many axes as there are beside the others.
    fn is_rest(&self) -> bool {
        matches!(self, Group::Rest)
    }
}

/// The groups of one side of a pattern.
fn groups_of(side: &str) -> Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    // The names of a parenthesis that is not closed yet.
    let mut open: Option<Vec<String>> = None;
    for token in side.replace('(', " ( ").replace(')', " ) ").split_whitespace() {
        match (token, &mut open) {
            ("(", None) => open = Some(Vec::new()),
            (")", Some(names)) => {
                groups.push(Group::Axis(std::mem::take(names)));
                open = None;
            }
            ("(" | ")", _) => return Err("its parentheses do not match".to_string()),
            ("1", Some(_)) => {}
            ("1", None) => groups.push(Group::Axis(Vec::new())),
            (REST, None) => groups.push(Group::Rest),
            (name, Some(names)) => names.push(checked_name(name)?),
            (name, None) => groups.push(Group::Axis(vec![checked_name(name)?])),
        }
    }
    if open.is_some() { Err("its parentheses do not match".to_string()) } else { Ok(groups) }
}

/// The names of each axis, with names for `rest` axes in place of `...`.
fn axes_of(groups: Vec<Group>, rest: usize) -> Vec<Vec<String>> {
    let written = |group| match group {
        Group::Rest => without_rest(vec![REST.to_string()], rest).into_iter().map(|n| vec![n]).collect(),
        Group::Axis(names) => vec![without_rest(names, rest)],
    };
    groups.into_iter().flat_map(written).collect()
}

fn try_run<T: Array>(
    x: &T,
    pattern: &str,
    lengths: &[(&str, usize)],
    by: Option<Reduction>,
    new_names: bool,
) -> Result<T, String> {
    let (left, right) = pattern.split_once("->").ok_or("it needs a `->` between its sides")?;
    let (left, right) = (groups_of(left)?, groups_of(right)?);
    let shape = x.shape();

    // Axes of the array, group by group.
    let rest_alone = left.iter().any(Group::is_rest);
    if left.iter().map(Group::rests).sum::<usize>() > usize::from(rest_alone) {
        return Err("its left side may have one `...`, outside of parentheses".to_string());
    }
    let named = left.len() - usize::from(rest_alone);
    if named > shape.len() || (!rest_alone && named < shape.len()) {
        return Err(format!("its left side has {named} axes and the array {}", shape.len()));
    }
    let rest = shape.len() - named;
    if !rest_alone && right.iter().any(|g| g.rests() > 0) {
        return Err("its right side has a `...` that its left side lacks".to_string());
    }
    let (left, right) = (axes_of(left, rest), axes_of(right, rest));
    let mut parts: Vec<(String, usize)> = Vec::new();
    let given = |name: &str| lengths.iter().find(|(n, _)| *n == name).map(|(_, length)| *length);
    for (group, &whole) in left.iter().zip(shape) {
        let open: Vec<&String> = group.iter().filter(|n| given(n).is_none()).collect();
        let known: usize = group.iter().filter_map(|n| given(n)).product();
        let text = group.join(" ");
        let found = match open.len() {
            0 if known == whole => 0,
            0 => return Err(format!("`{text}` has {known} elements and its axis {whole}")),
            1 if known > 0 && whole % known == 0 => whole / known,
            1 => return Err(format!("`{text}`: {whole} elements do not divide by {known}")),
            _ => return Err(format!("`{text}`: give the length of all names but one")),
        };
        for name in group {
            if parts.iter().any(|(p, _)| p == name) {
                return Err(format!("its left side names `{name}` twice"));
            }
            parts.push((name.clone(), given(name).unwrap_or(found)));
        }
    }

    let wanted: Vec<&String> = right.iter().flatten().collect();
    for (i, name) in wanted.iter().enumerate() {
        if wanted[..i].contains(name) {
            return Err(format!("its right side names `{name}` twice"));
        }
        let old = parts.iter().any(|(n, _)| n == *name);
        if !old && !new_names {
            return Err(format!("its right side names `{name}`, which its left side does not"));
        }
        if !old && given(name).is_none() {
            return Err(format!("give the length of the new axis `{name}`"));
        }
    }
    if let Some((name, _)) =
        lengths.iter().find(|(n, _)| !parts.iter().any(|(p, _)| p == n) && !wanted.iter().any(|w| w == n))
    {
        return Err(format!("a length is given for `{name}`, which it does not name"));
    }
    let gone: Vec<usize> = (0..parts.len()).filter(|&i| !wanted.contains(&&parts[i].0)).collect();
    let mut y = x.reshape(&parts.iter().map(|(_, n)| *n).collect::<Vec<_>>());
    match by {
        Some(by) if !gone.is_empty() => y = y.reduce(by, &gone),
        None if !gone.is_empty() => {
            return Err(format!("its right side lacks `{}`: that would be `reduce`", parts[gone[0]].0));
        }
        _ => {}
    }
    parts.retain(|(n, _)| wanted.contains(&n));

    // New axes before the old ones, then all in order, then joined.
    let new: Vec<&String> = wanted.iter().filter(|w| !parts.iter().any(|(n, _)| n == **w)).copied().collect();
    if !new.is_empty() {
        let old: Vec<usize> = parts.iter().map(|(_, n)| *n).collect();
        let added: Vec<(String, usize)> =
            new.iter().map(|n| ((*n).clone(), given(n).expect("lengths of new axes were checked"))).collect();
        parts.splice(0..0, added);
        y = y.reshape(&[vec![1; new.len()], old].concat());
        y = y.expand(&parts.iter().map(|(_, n)| *n).collect::<Vec<_>>());
    }
    let at = |name: &String| parts.iter().position(|(n, _)| n == name).expect("a name that the array has");
    let order: Vec<usize> = wanted.iter().map(|n| at(n)).collect();
    let joined: Vec<usize> = right.iter().map(|g| g.iter().map(|n| parts[at(n)].1).product()).collect();
    Ok(y.permute(&order).reshape(&joined))
}

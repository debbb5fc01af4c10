//! What an evcxr notebook gets of three figures, as a page that shows them like one.
use ironlens_report::*;

fn main() {
    let heat =
        imshow(Array::new([64, 64], &(0..4096).map(|i| (i as f32).sin()).collect::<Vec<_>>()).unwrap_or_default());
    let figures = [
        line(&[3.0, 1.0, 0.1]).title("first").log_y(),
        heat.title("second").midpoint(0.0),
        bar(["a", "b"], &[1.0, 2.0]).title("third"),
    ];
    figures.iter().for_each(Figure::evcxr_display);
}

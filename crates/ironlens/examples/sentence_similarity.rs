//! How alike sentences are, by an encoder of sentence-transformers'.
//!
//!     cargo run --release --example sentence_similarity -- sentence-transformers/all-MiniLM-L6-v2
//!
//! The argument is a name in the Hugging Face cache, or a folder. Further arguments are sentences.

use std::error::Error;

use ironlens::prelude::*;

const SENTENCES: [&str; 4] = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The cat sat on the mat.",
    "Stock prices fell sharply on Monday.",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next().ok_or("give a name or a folder of a model of sentence-transformers'")?;
    let given: Vec<String> = arguments.collect();
    let sentences = if given.is_empty() { SENTENCES.map(String::from).to_vec() } else { given };

    let model = HookedEncoder::from_pretrained(&source)?;
    println!("{:?}", model.sentences());
    // One vector for each sentence, `[sentence, d_model]`, of length 1 where the model normalises.
    let vectors = model.sentence_embeddings(&sentences)?;
    let lengths = (&vectors * &vectors).sum_keepdim(1).sqrt();
    let directions = &vectors / &lengths;
    let cosines = directions.matmul(&directions.t());

    for (sentence, row) in sentences.iter().zip(cosines.to_vec().chunks(sentences.len())) {
        let row: Vec<String> = row.iter().map(|c| format!("{c:>8.4}")).collect();
        println!("{}  {sentence}", row.join(" "));
    }
    Ok(())
}

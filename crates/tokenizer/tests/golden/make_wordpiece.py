"""Makes wordpiece.json: what transformers' BertTokenizer makes of odd texts, with a small vocabulary.

    pip install transformers==4.57.6
    python make_wordpiece.py      # writes wordpiece.json beside this file
"""

import json
import random
import tempfile
from pathlib import Path

from transformers import BertTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHARS = LETTERS + LETTERS.upper() + "0123456789" + "éÉñßöÅçİıøж中猫本ねこ가나αΩ٣"
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»—…。、‘’“”€"
WORDS = "the The cat Cat dog un ##aff ##able want ##want ##ing ##s ##ed ##ly is it don resume re ##sume co hello Hello".split()
WORDS += "world naïve naive 中国 ##国 mask 12 ##34 ##é ##e\u0301".split()
VOCAB = list(dict.fromkeys(SPECIAL + list(CHARS) + ["##" + c for c in CHARS] + list(PUNCTUATION) + WORDS))

ODD = [
    "", " ", "\n\t\r\n", "hello", "Hello, World!", "UNAFFABLE unwanted", "don't", "the cat's", "naïve résumé Ünïcödé",
    "e\u0301 E\u0301 cafe\u0301", "İstanbul ıI", "ß ẞ Straße", "中国人喜欢猫", "a中b国c", "猫cat猫", "日本語のテキスト ねこ",
    "가나다 한국어", "ΑΩ αω ς Σ", "жЖ привет", "עברית مرحبا ٣٤", "हिन्दी ग", "ไทย", "😀 a😀b 👩‍👩‍👧", "\u200b\u200d\ufeffa",
    "a\u00a0b\u2003c\u3000d\u2028e\u2029f\x85g", "a\x00b\x01c\x7fd\x9fe", "\ufffd a\ufffdb", "a\u00adb", "[MASK]", "[mask]",
    "The [MASK] sat", "the[MASK]sat", "[CLS] a [SEP] b [PAD] [UNK]", "[MASK][MASK]", "[MASK", "MASK]", "[ MASK ]", "##s", "a ##s b",
    "# # ##", "...", "…", "—–-", "a-b_c/d\\e", "$5.00 50% a@b.c http://x.y/?q=1&r=2#s", "“quoted” ‘it’ «so»", "`~^|<>{}+=",
    "x" * 99, "x" * 100, "x" * 101, "the" * 40, "x" * 250, "é" * 100, "é" * 101, "中" * 120, "a." * 80, "12345 1234", "１２３ ａｂｃ ＡＢＣ",
    "ﬁ ﬂ ǆ", "Å Å Å", "ǅ ᾳ", "①②", "½", "a\u0300\u0301\u0302b", "\u0301a", "𝒜𝓁𝓅𝒽𝒶", "𠀀𠀁", "㐀㐁", "豈更", "丽", "〆〇", "！？，。：；（）",
    "tab\tnew\nline\rreturn\x0bvt\x0cff", "\u202eabc\u202c", "a\u0085b", "\ue000\ue001", "\ud7ff", "zzz\uffffz", "the  cat   is", " the cat ",
    "THE CAT IS", "iPhone McDonald eBay", "re-sume", "co-co", "un-want-ed", "hello\u0336world\u0336", "ʼn ŉ", "Ǆ", "ŒœÆæ", "Ǿ", "ø Ø",
]


def texts():
    rng = random.Random(0)
    alphabet = CHARS + PUNCTUATION + "   \u0301\u0308\u00ad\u200b\t" + "中国日本ñ" + "qwzÜÎ😀ไ"
    made = ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 24))) for _ in range(140)]
    words = [w.removeprefix("##") for w in WORDS] + ["[MASK]", ".", ",", "Ünwanted", "ING", "zq"]
    made += [rng.choice(["", " "]).join(rng.choice(words) for _ in range(rng.randint(2, 9))) for _ in range(60)]
    return ODD + made


def pairs():
    rng = random.Random(1)
    words = ["the", "cat", "is", "unwanted", "hello", "中国", "."]
    made = []
    for a in [0, 1, 3, 8]:
        for b in [0, 1, 4, 9]:
            for length in [None, 3, 4, 8, 11]:
                first, second = (" ".join(rng.choice(words) for _ in range(n)) for n in [a, b])
                made.append([first, second, length])
    return made


def main():
    made = {"vocab": VOCAB, "texts": texts(), "settings": []}
    for settings in [
        {"do_lower_case": True},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
        {"do_lower_case": False, "strip_accents": True},
    ]:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "vocab.txt").write_text("".join(f"{t}\n" for t in VOCAB), encoding="utf-8")
            config = {"tokenizer_class": "BertTokenizer", **settings}
            Path(folder, "tokenizer_config.json").write_text(json.dumps(config))
            tokenizer = BertTokenizerFast.from_pretrained(folder)
        ids = [tokenizer(text).input_ids for text in made["texts"]]
        made["settings"].append({"config": config, "ids": ids, "decoded": [tokenizer.decode(i) for i in ids]})
    made["pairs"] = []
    for first, second, length in pairs():
        # As a batch: alone, an empty second text is taken for none.
        out = tokenizer([first], [second], truncation=length is not None, max_length=length)
        one = tokenizer(first, truncation=length is not None, max_length=length)
        made["pairs"].append([first, second, length, out.input_ids[0], out.token_type_ids[0], one.input_ids])
    text = json.dumps(made, ensure_ascii=True, separators=(",", ":"))
    Path(__file__).with_name("wordpiece.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

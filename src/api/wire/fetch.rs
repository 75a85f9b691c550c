//! Shell. In which form commands are answered, and what is asked when they are fetched.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Item, StoppedLine, SummaryLine};
use crate::domain::commands::container::{self, Fields, Header};
use crate::domain::names::DeviceId;

/// In which form an answer with commands comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Lines of JSON, commands in base64.
    #[default]
    Ndjson,
    /// The container of signed commands, `src/docs/container.md`: a third shorter, and much less work.
    Container,
    /// The same, a command told by what differs from the last: for `smkictl`, whose answers are most of what goes out.
    Differences,
}

/// The query of calls that answer with commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerForm {
    /// Else `ndjson`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    pub form: Option<Form>,
}

/// Asks for the commands of a request that was taken in. They are handed over in the order of their intents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryFetch {
    /// Only those after this intent: whoever has the commands up to one goes on there, and asks by Device for what was unknown or withheld.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Only those of these Devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub devices: Option<Vec<DeviceId>>,
    /// Of those Devices only what stands up to this intent: what comes after it is asked for with `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Whether to go on until the request has come to its end.
    #[serde(default)]
    pub follow: bool,
}

/// Writes an answer with commands, in any form, behind what is in a buffer already.
#[derive(Debug)]
pub enum AnswerWriter {
    /// Lines of NDJSON.
    Ndjson,
    /// A container, with its header.
    Container(Box<Header>, container::Writer),
}

impl AnswerWriter {
    /// Begins one. Without a header there are no commands, and so no container.
    pub fn begin(form: Form, header: Option<Header>, out: &mut Vec<u8>) -> Self {
        match (form, header) {
            (Form::Container, Some(header)) => {
                let writer = container::Writer::begin(&header, out);
                Self::Container(Box::new(header), writer)
            }
            (Form::Differences, Some(header)) => {
                let writer = container::Writer::begin_differences(&header, out);
                Self::Container(Box::new(header), writer)
            }
            (Form::Ndjson, _) | (Form::Container | Form::Differences, None) => Self::Ndjson,
        }
    }

    /// What became of one Device.
    pub fn item(&mut self, item: &Item, out: &mut Vec<u8>) {
        if let Some(command) = &item.command {
            let (template, counter) = (item.template.as_ref(), item.counter);
            if let (Self::Container(header, writer), Some(template), Some(counter), Some(intent)) =
                (&mut *self, template, counter, item.intent)
                && let Some(template) = header.template(template)
            {
                let fields = Fields { device: item.device, counter, intent, template };
                writer.command(fields, &command.0, out);
                return;
            }
        }
        self.line(|line| item.append_line(line), out);
    }

    /// Why nothing more comes.
    pub fn stopped(&mut self, stopped: &StoppedLine, out: &mut Vec<u8>) {
        self.line(|line| stopped.append_line(line), out);
    }

    /// The end, without which it was cut.
    pub fn end(mut self, summary: SummaryLine, out: &mut Vec<u8>) {
        self.line(|line| summary.append_line(line), out);
        if let Self::Container(_, writer) = self {
            writer.end(out);
        }
    }

    fn line(&mut self, append: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
        match self {
            Self::Ndjson => append(out),
            Self::Container(_, writer) => {
                let mut line = Vec::new();
                append(&mut line);
                writer.line(&line, out);
            }
        }
    }
}

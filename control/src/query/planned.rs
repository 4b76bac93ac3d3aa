//! A query in the making: which datasets it names, the small tables that come with it, what of it can be reused.

use model::{
    Name, Output, Payload,
    processor::{Query, QueryTable, SMALL_TABLES_BYTES, SmallTable},
};
use storage::Dataset;

use super::{table, wrong};
use crate::{Control, Error, Question, question::WithTable, submit::now_ms};

/// What was typed, before anything is looked up.
pub(super) struct Typed<'a> {
    question: &'a Question,
    /// Names of datasets.
    datasets: Vec<Name>,
    with: Vec<SmallTable>,
}

/// A query with what belongs to it.
pub(super) struct Planned {
    pub(super) query: Query,
    /// Those of the query, in its order; at least one.
    pub(super) datasets: Vec<Dataset>,
    /// Knows the small tables.
    pub(super) runtime: sql::Runtime,
    /// The bytes of the small tables, in the order of the query.
    pub(super) tables: Vec<Vec<u8>>,
}

impl<'a> Typed<'a> {
    /// Looks at the small tables and finds which names are those of datasets.
    ///
    /// # Errors
    /// What is no question, or about no dataset; small tables that can't be read or are too large.
    pub(super) fn new(question: &'a Question) -> Result<Self, Error> {
        let named = sql::tables(&question.sql).map_err(wrong)?;
        let with = small_tables(&question.with)?;
        if let Some(unused) = with.iter().find(|table| !named.contains(&table.name)) {
            return Err(Error::Usage(format!(
                "the query does not read the table {}",
                unused.name
            )));
        }
        let datasets = named
            .iter()
            .filter(|name| with.iter().all(|table| table.name != **name))
            .map(|name| Name::new(name.as_str()).map_err(|error| Error::Usage(error.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        if datasets.is_empty() {
            return Err(Error::Usage(
                "the query reads no dataset: name one behind FROM".into(),
            ));
        }
        Ok(Self {
            question,
            datasets,
            with,
        })
    }

    /// Looks the datasets up. Plans nothing yet.
    ///
    /// # Errors
    /// Unknown datasets, what can't be reached.
    pub(super) async fn over(self, control: &Control) -> Result<Planned, Error> {
        let (mut datasets, mut described) = (Vec::new(), Vec::new());
        for name in &self.datasets {
            let dataset = control.dataset(name).await?;
            described.push(QueryTable {
                name: name.to_string(),
                table: table::of(control, &dataset).await?,
                lower_half: None,
            });
            datasets.push(dataset);
        }
        let question = self.question;
        let query = Query {
            sql: question.sql.clone(),
            tables: described,
            with: self.with,
            gather_rows: question.gather_rows,
            time_zone: question.time_zone.clone(),
            now_us: now_ms().saturating_mul(1000),
            version: sql::VERSION.to_string(),
            question: None,
            into: question.into.clone(),
            refresh: None,
        };
        Ok(Planned {
            query,
            datasets,
            runtime: sql::Runtime::for_planning(),
            tables: question.with.iter().map(|table| table.bytes.clone()).collect(),
        })
    }
}

impl Planned {
    /// Checks the query, and tells what of it can be reused; `question` identifies it where its answer may be given again.
    ///
    /// # Errors
    /// A query that is wrong or can't be split, with the reason.
    pub(super) async fn plan(&mut self, question: Option<String>) -> Result<(), Error> {
        self.planned(question).await.map_err(wrong)
    }

    /// As [`Planned::plan`], for who looks at what is wrong.
    ///
    /// # Errors
    /// Those of [`sql::Runtime::check`]; [`sql::Error::BadTable`].
    pub(super) async fn planned(&mut self, question: Option<String>) -> Result<(), sql::Error> {
        for (table, bytes) in self.query.with.iter().zip(&self.tables) {
            self.runtime.keep(table, bytes)?;
        }
        let fingerprints = self.runtime.fingerprints(&self.query).await?;
        let repeatable = self.runtime.is_repeatable(&self.query).await?;
        for (table, fingerprint) in self.query.tables.iter_mut().zip(fingerprints) {
            let digits = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            table.lower_half = fingerprint.map(digits);
        }
        self.query.question = question.filter(|_| repeatable);
        Ok(())
    }
}

/// Learns the columns of small tables.
fn small_tables(with: &[WithTable]) -> Result<Vec<SmallTable>, Error> {
    let mut tables = Vec::<SmallTable>::new();
    let bytes: u64 = with.iter().map(|table| table.bytes.len() as u64).sum();
    if bytes > SMALL_TABLES_BYTES {
        return Err(Error::Usage(format!(
            "the tables that go with the query take {bytes} bytes, more than {SMALL_TABLES_BYTES}: add them as datasets, and \
             join those with --gather"
        )));
    }
    for WithTable { name, ending, bytes } in with {
        if tables.iter().any(|table| table.name == *name) {
            return Err(Error::Usage(format!("there are two tables named {name}")));
        }
        tables.push(SmallTable {
            name: name.clone(),
            table: sql::small_table(name, ending.as_deref(), bytes).map_err(wrong)?,
            checksum: sql::checksum(bytes),
            stored: Output::Inline(Payload(Vec::new())),
        });
    }
    Ok(tables)
}

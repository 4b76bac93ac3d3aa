//! What `*` stands for: the columns that a dataset has of its own. Those that every dataset has are there by name alone.
//!
//! DataFusion expands `*` to all columns of a table, so they are excluded in the statement before it is planned.

use std::{mem, ops::ControlFlow};

use datafusion::sql::{
    parser::Statement,
    sqlparser::ast::{
        ExcludeSelectItem, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
        SelectItemQualifiedWildcardKind, TableFactor, TableWithJoins, VisitMut, VisitorMut,
        WildcardAdditionalOptions,
    },
};
use model::{
    processor::QueryTable,
    table::{EVERYWHERE, RAW, Table},
};

/// Leaves the columns that every dataset has out of each `*`. They stay where the sides of a join of datasets can't be
/// told apart: without a name, `NATURAL`, or `EXCLUDE` behind the star.
pub(super) fn narrow(statement: &mut Statement, datasets: &[QueryTable]) {
    let mut stars = Stars {
        datasets,
        scopes: Vec::new(),
    };
    if let Statement::Statement(sql) = statement {
        let _ = sql.visit(&mut stars);
    }
}

struct Stars<'q> {
    datasets: &'q [QueryTable],
    /// Of the queries around the place that is visited.
    scopes: Vec<Scope>,
}

/// The common table expressions of a query.
struct Scope {
    names: Vec<String>,
    /// How many of them can be named where the visit is.
    known: usize,
    /// How many of them are behind.
    visited: usize,
}

impl VisitorMut for Stars<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let with = query.with.as_ref();
        let tables = with.map(|with| &with.cte_tables[..]).unwrap_or_default();
        let names: Vec<String> = tables.iter().map(|table| called(&table.alias.name)).collect();
        let known = if with.is_some_and(|with| with.recursive) {
            names.len()
        } else {
            0
        };
        self.scopes.push(Scope {
            names,
            known,
            visited: 0,
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.scopes.pop();
        // The first queries within a query are its common table expressions.
        if let Some(around) = self.scopes.last_mut()
            && around.visited < around.names.len()
        {
            around.visited += 1;
            around.known = around.known.max(around.visited);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let relations = self.relations(&select.from);
        if relations.list.iter().all(|relation| relation.hidden.is_empty()) {
            return ControlFlow::Continue(());
        }
        for item in mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(options) => select.projection.extend(relations.all(options)),
                SelectItem::QualifiedWildcard(kind, options) => {
                    let options = match relations.called(&kind) {
                        Some(relation) => excluding(options, &relation.hidden),
                        None => options,
                    };
                    select
                        .projection
                        .push(SelectItem::QualifiedWildcard(kind, options));
                }
                other => select.projection.push(other),
            }
        }
        ControlFlow::Continue(())
    }
}

impl Stars<'_> {
    fn relations(&self, from: &[TableWithJoins]) -> Relations {
        let mut relations = Relations {
            list: Vec::new(),
            apart: true,
        };
        for tables in from {
            self.joined(tables, &mut relations);
        }
        relations
    }

    fn joined(&self, tables: &TableWithJoins, to: &mut Relations) {
        let left = to.list.len();
        self.factor(&tables.relation, to);
        for join in &tables.joins {
            let right = to.list.len();
            self.factor(&join.relation, to);
            match &join.join_operator {
                JoinOperator::Semi(_)
                | JoinOperator::LeftSemi(_)
                | JoinOperator::Anti(_)
                | JoinOperator::LeftAnti(_) => to.list.truncate(right),
                JoinOperator::RightSemi(_) | JoinOperator::RightAnti(_) => {
                    to.list.drain(left..right);
                }
                JoinOperator::Join(JoinConstraint::Using(columns))
                | JoinOperator::Inner(JoinConstraint::Using(columns))
                | JoinOperator::Left(JoinConstraint::Using(columns))
                | JoinOperator::LeftOuter(JoinConstraint::Using(columns)) => match &mut to.list[right..] {
                    [one] => one.joined_by.extend(columns.iter().cloned()),
                    _ => to.apart = false,
                },
                JoinOperator::Join(on)
                | JoinOperator::Inner(on)
                | JoinOperator::Left(on)
                | JoinOperator::LeftOuter(on)
                | JoinOperator::Right(on)
                | JoinOperator::RightOuter(on)
                | JoinOperator::FullOuter(on)
                | JoinOperator::CrossJoin(on) => {
                    to.apart &= matches!(on, JoinConstraint::On(_) | JoinConstraint::None);
                }
                _ => to.apart = false,
            }
        }
    }

    fn factor(&self, factor: &TableFactor, to: &mut Relations) {
        let (name, alias) = match factor {
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => return self.joined(table_with_joins, to),
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => (Some(name), alias.as_ref()),
            TableFactor::Derived { alias, .. } => (None, alias.as_ref()),
            _ => (None, None),
        };
        let renames = alias.is_some_and(|alias| !alias.columns.is_empty());
        let table = name.filter(|_| !renames).and_then(|name| self.dataset(name));
        to.list.push(Relation {
            name: alias
                .map(|alias| alias.name.clone().into())
                .or_else(|| name.cloned()),
            hidden: table.map(hidden).unwrap_or_default(),
            joined_by: Vec::new(),
        });
    }

    /// The dataset that a name in FROM stands for.
    fn dataset(&self, name: &ObjectName) -> Option<&Table> {
        let [part] = &name.0[..] else { return None };
        let name = called(part.as_ident()?);
        let known = |scope: &Scope| scope.names[..scope.known].contains(&name);
        if self.scopes.iter().any(known) {
            return None;
        }
        let dataset = self.datasets.iter().find(|dataset| dataset.name == name);
        dataset.map(|dataset| &dataset.table)
    }
}

/// What is behind FROM, in its order.
struct Relations {
    list: Vec<Relation>,
    /// Whether all columns are those of one after the other.
    apart: bool,
}

struct Relation {
    name: Option<ObjectName>,
    /// The columns that a star leaves out.
    hidden: Vec<ObjectName>,
    /// Columns that it shares with what is before it.
    joined_by: Vec<ObjectName>,
}

impl Relations {
    /// What stands in the place of a star.
    fn all(&self, options: WildcardAdditionalOptions) -> Vec<SelectItem> {
        let mut hiding = self.list.iter().filter(|relation| !relation.hidden.is_empty());
        if let (Some(only), None) = (hiding.next(), hiding.next()) {
            return vec![SelectItem::Wildcard(excluding(options, &only.hidden))];
        }
        let each = self.list.iter().map(|relation| {
            let name = SelectItemQualifiedWildcardKind::ObjectName(relation.name.clone()?);
            let left_out = [&relation.hidden[..], &relation.joined_by[..]].concat();
            Some(SelectItem::QualifiedWildcard(
                name,
                excluding(options.clone(), &left_out),
            ))
        });
        let plain = options == WildcardAdditionalOptions::default();
        let each: Option<Vec<_>> = each.collect();
        match each {
            Some(each) if self.apart && plain => each,
            _ => vec![SelectItem::Wildcard(options)],
        }
    }

    fn called(&self, kind: &SelectItemQualifiedWildcardKind) -> Option<&Relation> {
        let SelectItemQualifiedWildcardKind::ObjectName(name) = kind else {
            return None;
        };
        let same = |other: &ObjectName| names(other) == names(name);
        self.list
            .iter()
            .find(|relation| relation.name.as_ref().is_some_and(same))
    }
}

/// The options of a star, with more columns excluded.
fn excluding(mut options: WildcardAdditionalOptions, more: &[ObjectName]) -> WildcardAdditionalOptions {
    let mut excluded = match options.opt_exclude.take() {
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names,
        None => Vec::new(),
    };
    let mut known: Vec<Vec<String>> = excluded.iter().map(names).collect();
    if let Some(except) = &options.opt_except {
        known.push(vec![called(&except.first_element)]);
        known.extend(except.additional_elements.iter().map(|name| vec![called(name)]));
    }
    let new = more.iter().filter(|name| !known.contains(&names(name)));
    excluded.extend(new.cloned());
    options.opt_exclude = (!excluded.is_empty()).then_some(ExcludeSelectItem::Multiple(excluded));
    options
}

/// What a star leaves out of a dataset: the line stays where there is nothing else.
fn hidden(table: &Table) -> Vec<ObjectName> {
    let is_hidden = |name: &&str| !(table.columns.is_empty() && *name == RAW);
    let names = EVERYWHERE.iter().map(|(name, _)| *name).filter(is_hidden);
    names.map(|name| Ident::new(name).into()).collect()
}

/// A name as DataFusion reads it.
fn called(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_ascii_lowercase(),
    }
}

fn names(name: &ObjectName) -> Vec<String> {
    let parts = name.0.iter().filter_map(|part| part.as_ident());
    parts.map(called).collect()
}

//! Whether a query's result over new rows is what those rows add to its result over all: the condition of mode append.
//!
//! It holds where each row of the delta source goes its own way: projections, filters, unnesting, unions of such, and
//! joins that keep or multiply the row by what other tables hold. Parts of the query that do not read the delta source
//! may do anything.

use std::fmt;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

/// Why a query cannot be maintained by appending, in words that follow "the SQL ".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRowWise(pub String);

impl fmt::Display for NotRowWise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks an analyzed, not yet optimized plan.
///
/// # Errors
/// The first operator that looks at more than one of the delta's rows, or would answer differently another time.
pub fn row_wise(plan: &LogicalPlan, delta: &TableReference) -> Result<(), NotRowWise> {
    deterministic(plan)?;
    if reads(plan, delta)? { Ok(()) } else { Err(NotRowWise(format!("does not read {delta} for its rows"))) }
}

/// Whether the rows of this plan come from the delta's, one by one.
fn reads(plan: &LogicalPlan, delta: &TableReference) -> Result<bool, NotRowWise> {
    for expr in plan.expressions() {
        subqueries(&expr, delta)?;
    }
    match plan {
        LogicalPlan::TableScan(scan) => {
            let ours = scan.table_name.resolved_eq(delta);
            if ours && scan.fetch.is_some() {
                return Err(NotRowWise("limits its rows".to_owned()));
            }
            Ok(ours)
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Subquery(_) => reads(plan.inputs()[0], delta),
        LogicalPlan::Join(join) => {
            let (left, right) = (reads(&join.left, delta)?, reads(&join.right, delta)?);
            let kept = |side: &str| {
                NotRowWise(format!(
                    "keeps rows of another table that {delta} does not match ({} join); a new row could take one back; \
                     put {delta} on the {side} of the join",
                    join.join_type
                ))
            };
            match (left, right) {
                (false, false) => Ok(false),
                (true, true) => {
                    Err(NotRowWise(format!("joins {delta} with itself; new rows would have to meet the old ones")))
                }
                (true, false) => match join.join_type {
                    JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                        Ok(true)
                    }
                    _ => Err(kept("left")),
                },
                (false, true) => match join.join_type {
                    JoinType::Inner
                    | JoinType::Right
                    | JoinType::RightSemi
                    | JoinType::RightAnti
                    | JoinType::RightMark => Ok(true),
                    _ => Err(kept("right")),
                },
            }
        }
        LogicalPlan::Union(union) => {
            let branches = union.inputs.iter().map(|input| reads(input, delta)).collect::<Result<Vec<_>, _>>()?;
            if branches.iter().any(|reads| *reads) && branches.iter().any(|reads| !reads) {
                return Err(NotRowWise(format!(
                    "unites {delta} with rows that do not come from it; each run would add those again"
                )));
            }
            Ok(branches.contains(&true))
        }
        other => {
            let mut below = false;
            for input in other.inputs() {
                below |= reads_anywhere(input, delta);
            }
            if below {
                return Err(NotRowWise(format!("{} over the rows of {delta}", what(other))));
            }
            Ok(false)
        }
    }
}

/// A subquery in an expression sees all rows at once: it may read other tables only.
fn subqueries(expr: &Expr, delta: &TableReference) -> Result<(), NotRowWise> {
    let mut found = false;
    expr.apply(|expr| {
        let subquery = match expr {
            Expr::Exists(exists) => Some(&exists.subquery),
            Expr::InSubquery(within) => Some(&within.subquery),
            Expr::ScalarSubquery(scalar) => Some(scalar),
            Expr::SetComparison(comparison) => Some(&comparison.subquery),
            _ => None,
        };
        found |= subquery.is_some_and(|subquery| reads_anywhere(&subquery.subquery, delta));
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(|error| NotRowWise(crate::query::one_line(&error)))?;
    if found {
        return Err(NotRowWise(format!("asks for other rows of {delta} in a subquery")));
    }
    Ok(())
}

fn reads_anywhere(plan: &LogicalPlan, delta: &TableReference) -> bool {
    let mut found = false;
    // The visitor itself cannot fail.
    let _ = plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::TableScan(scan) = plan {
            found |= scan.table_name.resolved_eq(delta);
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

fn deterministic(plan: &LogicalPlan) -> Result<(), NotRowWise> {
    let mut culprit = None;
    let walked = plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(function) = expr
                    && function.func.signature().volatility == Volatility::Volatile
                {
                    culprit = Some(function.func.name().to_owned());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    if let Err(error) = walked {
        return Err(NotRowWise(crate::query::one_line(&error)));
    }
    match culprit {
        Some(name) => Err(NotRowWise(format!("calls {name}(), which answers differently each time"))),
        None => Ok(()),
    }
}

fn what(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Aggregate(_) => "aggregates (GROUP BY, sum, count, …)",
        LogicalPlan::Window(_) => "computes a window function",
        LogicalPlan::Sort(_) => "sorts (a table has no order; remove ORDER BY)",
        LogicalPlan::Limit(_) => "takes LIMIT or OFFSET",
        LogicalPlan::Distinct(_) => "takes DISTINCT",
        LogicalPlan::RecursiveQuery(_) => "recurses",
        _ => "does something that is not row by row",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
    use datafusion::datasource::empty::EmptyTable;
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn check(sql: &str) -> Result<(), String> {
        let session = SessionContext::new();
        let columns = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("c", DataType::Utf8, true),
            Field::new("xs", DataType::List(Arc::new(Field::new("element", DataType::Int64, true))), true),
        ]);
        let schema = MemorySchemaProvider::new();
        for name in ["new", "old"] {
            schema.register_table(name.to_owned(), Arc::new(EmptyTable::new(Arc::new(columns.clone())))).unwrap();
        }
        session.catalog("datafusion").unwrap().register_schema("a", Arc::new(schema)).unwrap();
        let plan = session.state().create_logical_plan(sql).await.unwrap();
        row_wise(&plan, &TableReference::partial("a", "new")).map_err(|why| why.to_string())
    }

    #[tokio::test]
    async fn what_takes_each_row_by_itself_is_maintained() {
        for sql in [
            "SELECT * FROM a.new",
            "SELECT id + 1 AS n, upper(c) FROM a.new WHERE id > 3 AND c LIKE 'x%'",
            "SELECT id, unnest(xs) AS x FROM a.new",
            "SELECT t.x FROM (SELECT id, unnest(xs) AS x FROM a.new) t WHERE t.x > 1",
            "WITH n AS (SELECT * FROM a.new) SELECT id FROM n UNION ALL SELECT id * 2 FROM n",
            "SELECT n.id, o.c FROM a.new n JOIN a.old o ON n.id = o.id",
            "SELECT n.id, o.c FROM a.new n LEFT JOIN (SELECT id, max(c) AS c FROM a.old GROUP BY id) o ON n.id = o.id",
            "SELECT n.id FROM a.old o RIGHT JOIN a.new n ON n.id = o.id",
            "SELECT id FROM a.new WHERE id IN (SELECT id FROM a.old)",
            "SELECT id FROM a.new WHERE NOT EXISTS (SELECT 1 FROM a.old WHERE old.id = new.id)",
            "SELECT id, (SELECT max(id) FROM a.old) AS m, now() AS at FROM a.new",
        ] {
            assert_eq!(check(sql).await, Ok(()), "{sql}");
        }
    }

    #[tokio::test]
    async fn what_looks_at_several_rows_is_refused_with_its_reason() {
        for (sql, says) in [
            ("SELECT count(*) AS n FROM a.new", "aggregates"),
            ("SELECT c, sum(id) AS n FROM a.new GROUP BY c", "aggregates"),
            ("SELECT DISTINCT c FROM a.new", "DISTINCT"),
            ("SELECT id FROM a.new ORDER BY id", "ORDER BY"),
            ("SELECT id FROM a.new LIMIT 3", "LIMIT"),
            ("SELECT id, row_number() OVER (ORDER BY id) AS n FROM a.new", "window"),
            ("SELECT a.id FROM a.new a JOIN a.new b ON a.id = b.id", "itself"),
            ("SELECT o.id FROM a.old o LEFT JOIN a.new n ON n.id = o.id", "join"),
            ("SELECT o.id FROM a.old o WHERE o.id NOT IN (SELECT id FROM a.new)", "subquery"),
            ("SELECT id FROM a.new UNION ALL SELECT id FROM a.old", "unites"),
            ("SELECT id FROM a.new UNION SELECT id FROM a.new", "DISTINCT"),
            ("SELECT id FROM a.new EXCEPT SELECT id FROM a.old", "DISTINCT"),
            ("SELECT id FROM a.old", "does not read"),
            ("SELECT id, random() AS r FROM a.new", "random()"),
            ("SELECT id, (SELECT max(id) FROM a.new) AS m FROM a.new", "subquery"),
        ] {
            let error = check(sql).await.expect_err(sql);
            assert!(error.contains(says), "{sql}\n{error}");
        }
    }
}

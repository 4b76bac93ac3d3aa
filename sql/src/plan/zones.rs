//! Functions of DataFusion that declare times in the zone of the session and, over a column of texts, give times without
//! a zone, which fit neither their own schema nor what they are compared with.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, make_array},
        datatypes::DataType,
    },
    error::Result as Fallible,
    execution::{FunctionRegistry, SessionState},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature},
};

const NAMES: [&str; 5] = [
    "to_timestamp",
    "to_timestamp_seconds",
    "to_timestamp_millis",
    "to_timestamp_micros",
    "to_timestamp_nanos",
];

/// Has these functions give what they declare.
pub(super) fn zoned(state: &mut SessionState) -> Fallible<()> {
    for name in NAMES {
        let zoned = Zoned(state.udf(name)?);
        state.register_udf(Arc::new(zoned.into()))?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Zoned(Arc<ScalarUDF>);

impl ScalarUDFImpl for Zoned {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Fallible<DataType> {
        self.0.return_type(arguments)
    }

    fn invoke_with_args(&self, call: ScalarFunctionArgs) -> Fallible<ColumnarValue> {
        let declared = call.return_type().clone();
        // Not by the function itself, which would find that in a debug build and fail.
        let given = self.0.inner().invoke_with_args(call)?;
        let ColumnarValue::Array(times) = &given else {
            return Ok(given);
        };
        match (times.data_type(), &declared) {
            // The texts were read in the zone already: the numbers stay.
            (DataType::Timestamp(unit, None), DataType::Timestamp(same, Some(_))) if unit == same => {
                let zoned = times.to_data().into_builder().data_type(declared).build()?;
                Ok(ColumnarValue::Array(make_array(zoned)))
            }
            _ => Ok(given),
        }
    }
}

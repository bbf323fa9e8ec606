ARG BASE
FROM ${BASE}
# finding: 2 error from-unknown --build-arg

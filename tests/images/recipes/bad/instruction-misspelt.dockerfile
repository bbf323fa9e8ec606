FROM debian:12
RUNN true
# finding: 2 error instruction-unknown did you mean RUN?

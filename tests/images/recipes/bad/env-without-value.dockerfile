FROM debian:12
ENV GOOD=1
ENV BAD
# finding: 3 error syntax ENV must have two arguments

"""Poisson's equation on a line, -u'' = 1 with u = 0 at both ends, solved on all ranks: `mpiexec --noprefix -n 2 python3 poisson.py`."""

import sys

import petsc4py

petsc4py.init(sys.argv)

from petsc4py import PETSc  # noqa: E402 - only behind init

POINTS = 99
matrix = PETSc.Mat().createAIJ([POINTS, POINTS], nnz=3)
first, last = matrix.getOwnershipRange()
for row in range(first, last):
    for column in range(max(row - 1, 0), min(row + 2, POINTS)):
        matrix.setValue(row, column, 2.0 if column == row else -1.0)
matrix.assemble()

solution, right = matrix.createVecs()
right.set((1 / (POINTS + 1)) ** 2)
solver = PETSc.KSP().create()
solver.setOperators(matrix)
solver.setType("cg")
solver.setTolerances(rtol=1e-10)
solver.setFromOptions()
solver.solve(right, solution)

largest = solution.max()[1]
if PETSc.COMM_WORLD.rank == 0:
    version = ".".join(map(str, PETSc.Sys.getVersion()[:2]))
    print(f"ranks: {PETSc.COMM_WORLD.size}, PETSc {version}, largest value: {largest:.4f}")

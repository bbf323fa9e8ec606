/* -u'' = 1 on (0, 1) with u(0) = u(1) = 0, by Jacobi's method: each rank has a part of the points and asks its neighbours for
 * the values at its ends. The largest value is u(1/2) = 1/8. */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  MPI_Init(&argc, &argv);
  int rank, size;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);

  const int points = 127, own = points / size + (rank < points % size);
  const double h = 1.0 / (points + 1);
  /* One more at each end, for the neighbours' values. */
  double *u = calloc(own + 2, sizeof *u), *next = calloc(own + 2, sizeof *next);
  const int left = rank > 0 ? rank - 1 : MPI_PROC_NULL, right = rank < size - 1 ? rank + 1 : MPI_PROC_NULL;

  double change = 1;
  int steps = 0;
  while (change > 1e-9) {
    MPI_Sendrecv(&u[1], 1, MPI_DOUBLE, left, 0, &u[own + 1], 1, MPI_DOUBLE, right, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Sendrecv(&u[own], 1, MPI_DOUBLE, right, 0, &u[0], 1, MPI_DOUBLE, left, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    double largest = 0;
    for (int i = 1; i <= own; i++) {
      next[i] = 0.5 * (u[i - 1] + u[i + 1] + h * h);
      largest = fmax(largest, fabs(next[i] - u[i]));
    }
    for (int i = 1; i <= own; i++) u[i] = next[i];
    MPI_Allreduce(&largest, &change, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    steps++;
  }

  double largest = 0, overall;
  for (int i = 1; i <= own; i++) largest = fmax(largest, u[i]);
  MPI_Reduce(&largest, &overall, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
  if (rank == 0) printf("ranks: %d, steps: %d, largest value: %.4f\n", size, steps, overall);
  free(u);
  free(next);
  MPI_Finalize();
  return 0;
}

/* MPI_Allreduce of 1, 16 and 64 MiB of f32, beside `ringtape bench all-reduce`: median bus bandwidth, 2(p-1)/p bytes/time.
   mpicc -O2 all_reduce.c -o all_reduce && mpirun --allow-run-as-root --oversubscribe -n 2 ./all_reduce */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, p, sizes[] = {1, 16, 64};
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &p);
    for (int s = 0; s < 3; s++) {
        size_t n = (size_t)sizes[s] << 18;
        int turns = sizes[s] == 1 ? 300 : 30;
        float *x = calloc(n, 4);
        double times[300];
        for (int i = -2; i < turns; i++) {
            MPI_Barrier(MPI_COMM_WORLD);
            double start = MPI_Wtime();
            MPI_Allreduce(MPI_IN_PLACE, x, (int)n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
            if (i >= 0) times[i] = MPI_Wtime() - start;
        }
        qsort(times, turns, sizeof *times, by_value);
        double t = times[turns / 2];
        if (rank == 0) printf("MPI %d MiB %.3f ms %.2f GB/s\n", sizes[s], t * 1e3, 2.0 * (p - 1) / p * n * 4 / t / 1e9);
        free(x);
    }
    MPI_Finalize();
    return 0;
}

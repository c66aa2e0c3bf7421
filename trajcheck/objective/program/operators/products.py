"""Products of matrices, their decompositions, Fourier transforms."""

from __future__ import annotations

SCHEMAS = """
product matmul(Tensor self, Tensor other) -> Tensor
product mm(Tensor self, Tensor mat2) -> Tensor
product bmm(Tensor self, Tensor mat2) -> Tensor
product mv(Tensor self, Tensor vec) -> Tensor
product dot(Tensor self, Tensor tensor) -> Tensor
product vdot(Tensor self, Tensor other) -> Tensor
inner inner(Tensor self, Tensor other) -> Tensor
product addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor
product addmv(Tensor self, Tensor mat, Tensor vec, *, Scalar beta=1, Scalar alpha=1) -> Tensor
product baddbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor
product linalg_matmul(Tensor self, Tensor other) -> Tensor
linear linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor
bilinear bilinear(Tensor input1, Tensor input2, Tensor weight, Tensor? bias=None) -> Tensor
outer outer(Tensor self, Tensor vec2) -> Tensor
outer ger(Tensor self, Tensor vec2) -> Tensor
einsum einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor
tensordot tensordot(Tensor self, Tensor other, int[] dims_self, int[] dims_other) -> Tensor
distances cdist(Tensor x1, Tensor x2, float p=2., int? compute_mode=None) -> Tensor
four linalg_cholesky(Tensor self, *, bool upper=False) -> Tensor
four cholesky(Tensor self, bool upper=False) -> Tensor
four linalg_inv(Tensor A) -> Tensor
four inverse(Tensor self) -> Tensor
four linalg_solve(Tensor A, Tensor B, *, bool left=True) -> Tensor
four linalg_det(Tensor A) -> Tensor
four det(Tensor self) -> Tensor
four linalg_slogdet(Tensor A) -> (Tensor sign, Tensor logabsdet)
four slogdet(Tensor self) -> (Tensor sign, Tensor logabsdet)
four logdet(Tensor self) -> Tensor
four linalg_eigh(Tensor self, str UPLO="L") -> (Tensor eigenvalues, Tensor eigenvectors)
four linalg_eigvalsh(Tensor self, str UPLO="L") -> Tensor
four linalg_solve_triangular(Tensor self, Tensor B, *, bool upper, bool left=True, bool unitriangular=False) -> Tensor
four linalg_matrix_exp(Tensor self) -> Tensor
four matrix_exp(Tensor self) -> Tensor
fft fft_fft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor
fft fft_ifft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor
fft fft_rfft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor
fft fft_irfft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor
fft fft_fft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2, -1], str? norm=None) -> Tensor
fft fft_ifft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2, -1], str? norm=None) -> Tensor
fft fft_rfft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2, -1], str? norm=None) -> Tensor
fft fft_irfft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2, -1], str? norm=None) -> Tensor
fft fft_fftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor
fft fft_ifftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor
fft fft_rfftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor
fft fft_irfftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor
fft fft_fftshift(Tensor self, int[1]? dim=None) -> Tensor
fft fft_ifftshift(Tensor self, int[1]? dim=None) -> Tensor
product addbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor
outer kron(Tensor self, Tensor other) -> Tensor
outer addr(Tensor self, Tensor vec1, Tensor vec2, *, Scalar beta=1, Scalar alpha=1) -> Tensor
decomposed linalg_qr(Tensor A, str mode="reduced") -> (Tensor Q, Tensor R)
decomposed linalg_svd(Tensor A, bool full_matrices=True, *, str? driver=None) -> (Tensor U, Tensor S, Tensor Vh)
four linalg_svdvals(Tensor A, *, str? driver=None) -> Tensor
four linalg_pinv(Tensor self, float rcond, bool hermitian=False) -> Tensor
four linalg_cholesky_ex(Tensor self, *, bool upper=False, bool check_errors=False) -> (Tensor L, Tensor info)
four linalg_matrix_power(Tensor self, int n) -> Tensor
four cholesky_solve(Tensor self, Tensor input2, bool upper=False) -> Tensor
"""

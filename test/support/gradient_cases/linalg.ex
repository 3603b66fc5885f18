defmodule Mlx.GradientCases.Linalg do
  @moduledoc false

  import Mlx.Samples, only: [tensor: 2]
  alias Nx.Block.LinAlg, as: Block
  alias Nx.LinAlg

  @general [[2.0, -1.0, 0.5], [0.25, 3.0, 1.0], [-0.5, 0.75, 1.5]]
  @definite [[4.0, 1.0, 0.5], [1.0, 3.0, -0.25], [0.5, -0.25, 2.0]]
  @lower [[2.0, 0.0, 0.0], [0.25, 3.0, 0.0], [-0.5, 0.75, 1.5]]
  @upper Enum.zip_with(@lower, & &1)
  @tall [[2.0, -1.0], [0.25, 3.0], [-0.5, 0.75]]
  @wide [[2.0, 0.25, -0.5], [-1.0, 3.0, 0.75]]
  @four [[2.0, -1.0, 0.5, 1.0], [0.25, 3.0, 1.0, 0.0], [-0.5, 0.75, 1.5, 2.0]] ++
          [[1.0, 0.0, 0.5, 4.0]]
  @vector hd(@general)

  # Enough for what Nx's own iterations leave.
  @close [ulps: 4096, scale: 4.0, signed_zero: false]
  # Nx's svd iterates until 1.0e-4, in double precision, too.
  @iterated [ulps: 2 ** 35, scale: 4.0, signed_zero: false]

  def all, do: products() ++ triangular() ++ factors() ++ others() ++ batches()

  defp products do
    for {description, a, b, fun} <- [
          {"of matrices", @general, @tall, &Nx.dot/2},
          {"of a matrix and a vector", @general, @vector, &Nx.dot/2},
          {"of vectors", @vector, @vector, &Nx.dot/2},
          {"along the first axes", @tall, @tall, &Nx.dot(&1, [0], &2, [0])},
          {"along crossed axes", @general, @general, &Nx.dot(&1, [0, 1], &2, [1, 0])},
          {"of batches", [@general, @lower], [@tall, @tall], &Nx.dot(&1, [2], [0], &2, [1], [0])}
        ] do
      row(:dot, description, fun, [a, b])
    end
  end

  defp triangular do
    for lower <- [true, false],
        left <- [true, false],
        transform <- [:none, :transpose],
        b <- [@general, @vector] do
      options = [lower: lower, left_side: left, transform_a: transform]
      name = "#{inspect(options)} of #{if b == @vector, do: "a vector", else: "a matrix"}"
      args = [if(lower, do: @lower, else: @upper), b]
      row(:triangular_solve, name, &LinAlg.triangular_solve(&1, &2, options), args)
    end
  end

  # Nx's gradients are those of functions of symmetric matrices.
  defp symmetric(a), do: Nx.divide(Nx.add(a, Nx.transpose(a)), 2)

  defp factors do
    for {kind, b} <- [matrix: @tall, vector: @vector] do
      row(Block.Solve, "for a #{kind}", &LinAlg.solve/2, [@general, b])
    end ++
      for {shape, a} <- [square: @general, tall: @tall, wide: @wide] do
        row(Block.QR, "of a #{shape} matrix", &LinAlg.qr/1, [a])
      end ++
      for {shape, a} <- [square: @general, tall: @tall, wide: @wide], full <- [true, false] do
        # Nx has gradients of singular values only.
        fun = fn a -> a |> LinAlg.svd(full_matrices?: full) |> elem(1) end
        row(Block.SVD, "of a #{shape} matrix, full: #{full}", fun, [a], close_f64: @iterated)
      end ++
      for a <- [[[2.0, 1.0], [1.0, 3.0]], @general, @four] do
        row(Block.Determinant, "of #{length(a)} rows", &LinAlg.determinant/1, [a])
      end ++
      [
        row(Block.Cholesky, "", &LinAlg.cholesky(symmetric(&1)), [@definite]),
        # The permutation has none.
        row(Block.LU, "", fn a -> a |> LinAlg.lu() |> Tuple.delete_at(0) end, [@general]),
        row(Block.Eigh, "", &LinAlg.eigh(symmetric(&1), eps: 1.0e-8), [@definite])
      ]
  end

  defp others do
    [
      row(Block.Solve, "in an inverse", &LinAlg.invert/1, [@general]),
      row(:pow, "in a norm", &LinAlg.norm/1, [@general]),
      row(:dot, "in a power", &LinAlg.matrix_power(&1, 3), [@general]),
      row(Block.SVD, "in a pseudo-inverse", &LinAlg.pinv/1, [@general], close_f64: @iterated)
    ]
  end

  defp batches do
    batch = [@definite, Enum.map(@definite, fn row -> Enum.map(row, &(2 * &1)) end)]

    for {block, fun} <- [
          {Block.Cholesky, &LinAlg.cholesky(Nx.divide(Nx.add(&1, LinAlg.adjoint(&1)), 2))},
          {Block.QR, &LinAlg.qr/1},
          {Block.Determinant, &LinAlg.determinant/1}
        ] do
      row(block, "of a batch", fun, [batch])
    end
  end

  defp row(op, description, fun, args, options \\ []) do
    {{op, description}, fun, Enum.map(args, &tensor(&1, :f32)), [close: @close] ++ options}
  end
end

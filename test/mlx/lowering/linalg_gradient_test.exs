defmodule Mlx.Lowering.LinalgGradientTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle
  import Mlx.Samples, only: [tensor: 2]
  alias Nx.LinAlg

  # Sums of what a function gives, with weights, so that no part cancels another.
  defp weighted(result) do
    for tensor <- if(is_tuple(result), do: Tuple.to_list(result), else: [result]) do
      weights = Nx.iota(tensor.shape) |> Nx.multiply(7) |> Nx.remainder(5) |> Nx.divide(4)
      Nx.sum(Nx.multiply(tensor, weights))
    end
    |> Enum.reduce(&Nx.add/2)
    |> Nx.real()
  end

  defp gradient(fun) do
    fn
      a -> Nx.Defn.grad(a, &weighted(fun.(&1)))
    end
  end

  defp gradients(fun) do
    fn a, b -> Nx.Defn.grad({a, b}, fn {a, b} -> weighted(fun.(a, b)) end) end
  end

  @general [[2.0, -1.0, 0.5], [0.25, 3.0, 1.0], [-0.5, 0.75, 1.5]]
  @symmetric [[4.0, 1.0, 0.5], [1.0, 3.0, -0.25], [0.5, -0.25, 2.0]]
  @lower [[2.0, 0.0, 0.0], [0.25, 3.0, 0.0], [-0.5, 0.75, 1.5]]
  @tall [[2.0, -1.0], [0.25, 3.0], [-0.5, 0.75]]
  @wide [[2.0, 0.25, -0.5], [-1.0, 3.0, 0.75]]

  defp general(type), do: tensor(@general, type)

  # Enough for what Nx's own iterations leave.
  @close [ulps: 4096, scale: 4.0, signed_zero: false]

  for type <- [:f32, :f64] do
    describe "gradients in #{type} of" do
      test "dot" do
        for {a, b, fun} <- [
              {@general, @tall, &Nx.dot/2},
              {@general, hd(@general), &Nx.dot/2},
              {@tall, @tall, &Nx.dot(&1, [0], &2, [0])},
              {[@general, @lower], [@tall, @tall], &Nx.dot(&1, [2], [0], &2, [1], [0])},
              {@general, @general, &Nx.dot(&1, [0, 1], &2, [1, 0])}
            ] do
          args = [tensor(a, unquote(type)), tensor(b, unquote(type))]
          assert_same(gradients(fun), args, ulps: 16, scale: 16.0)
        end
      end

      test "triangular_solve" do
        for lower <- [true, false], left <- [true, false], transform <- [:none, :transpose] do
          opts = [lower: lower, left_side: left, transform_a: transform]
          a = if lower, do: @lower, else: Enum.zip_with(@lower, & &1)

          for b <- [@general, hd(@general)] do
            args = [tensor(a, unquote(type)), tensor(b, unquote(type))]
            assert_same(gradients(&LinAlg.triangular_solve(&1, &2, opts)), args, @close)
          end
        end
      end

      test "solve" do
        for b <- [@tall, hd(@general)] do
          args = [general(unquote(type)), tensor(b, unquote(type))]
          assert_same(gradients(&LinAlg.solve/2), args, @close)
        end
      end

      test "cholesky" do
        assert_same(gradient(&LinAlg.cholesky/1), [tensor(@symmetric, unquote(type))], @close)
      end

      test "lu" do
        fun = fn a -> a |> LinAlg.lu() |> Tuple.delete_at(0) end
        assert_same(gradient(fun), [general(unquote(type))], @close)
      end

      test "qr" do
        for a <- [@general, @tall, @wide] do
          assert_same(gradient(&LinAlg.qr/1), [tensor(a, unquote(type))], @close)
        end
      end

      test "eigh" do
        fun = &LinAlg.eigh(&1, eps: 1.0e-8)
        assert_same(gradient(fun), [tensor(@symmetric, unquote(type))], @close)
      end

      test "svd" do
        for a <- [@general, @tall, @wide], full <- [true, false] do
          fun = fn a -> a |> LinAlg.svd(full_matrices?: full) |> elem(1) end
          assert_same(gradient(fun), [tensor(a, unquote(type))], iterated(unquote(type)))
        end
      end

      test "determinant" do
        for a <- [[[2.0, 1.0], [1.0, 3.0]], @general, four()] do
          assert_same(gradient(&LinAlg.determinant/1), [tensor(a, unquote(type))], @close)
        end
      end

      test "invert, norm and matrix_power" do
        for fun <- [&LinAlg.invert/1, &LinAlg.norm/1, &LinAlg.matrix_power(&1, 3)] do
          assert_same(gradient(fun), [general(unquote(type))], @close)
        end
      end

      test "pinv" do
        assert_same(gradient(&LinAlg.pinv/1), [general(unquote(type))], iterated(unquote(type)))
      end

      test "batches" do
        a =
          tensor([@symmetric, @symmetric], unquote(type))
          |> Nx.multiply(tensor([[[1]], [[2]]], unquote(type)))

        for fun <- [&LinAlg.cholesky/1, &LinAlg.qr/1, &LinAlg.determinant/1] do
          assert_same(gradient(fun), [a], @close)
        end
      end
    end
  end

  # Nx's svd iterates until 1.0e-4, in double precision, too.
  defp iterated(:f32), do: @close
  defp iterated(:f64), do: [ulps: 2 ** 35, scale: 4.0, signed_zero: false]

  defp four do
    [[2.0, -1.0, 0.5, 1.0], [0.25, 3.0, 1.0, 0.0], [-0.5, 0.75, 1.5, 2.0], [1.0, 0.0, 0.5, 4.0]]
  end
end

defmodule Mlx.GradientCases do
  @moduledoc """
  Functions whose gradients are known, at least one for each operation and each block.

  A case is `{{operation, description}, fun, args, options}`. The gradient is the one in
  the arguments that are floats, of a weighted sum of what the function gives.

  ## Options

    * `:close` - options of `Mlx.Oracle.assert_same/3` for the gradient in f32
    * `:close_f64` - the same for f64, by default those for f32
    * `:types` - of the arguments, f32 and f64 by default
    * `:f64` - whether it is computed in f64, whatever the arguments are
    * `:step` - of the central differences
    * `:nx` - why Nx's gradient is not the limit of differences, where it is not
  """

  alias __MODULE__.{Elements, Fast, Linalg, Shapes}

  def all, do: Elements.all() ++ Shapes.all() ++ Linalg.all() ++ Fast.all()

  @doc """
  Operations of which Nx refuses the gradient, each with a function.
  """
  def refused do
    x = [Mlx.Samples.tensor([[1.5, -2.0], [0.5, 3.0]], :f32)]

    [
      {:quotient, &Nx.quotient(Nx.as_type(&1, :s32), 2), x},
      {:reduce, &Nx.reduce(&1, 0.0, fn x, acc -> Nx.add(x, acc) end), x},
      {:window_reduce, &Nx.window_reduce(&1, 0.0, {2, 1}, fn x, acc -> Nx.add(x, acc) end), x},
      {:window_product, &Nx.window_product(&1, {2, 1}), x},
      {Nx.Block.LogicalNot, &Nx.logical_not/1, x}
    ]
  end

  @doc """
  The loss of a case's function, of a list of its arguments.
  """
  def loss(fun), do: fn args -> weighted(apply(fun, args)) end

  @doc """
  The gradients of that loss in the floats among the arguments.
  """
  def gradient(fun) do
    gradient = fn tensors ->
      {floats, put} = tensors |> Tuple.to_list() |> floats()
      Nx.Defn.grad(floats, &loss(fun).(put.(&1)))
    end

    # Within a function that is compiled already, by its compiler.
    fn args -> Nx.Defn.jit(gradient, on_conflict: :reuse).(List.to_tuple(args)) end
  end

  @doc """
  The floats among arguments, and a function that puts others in their places.
  """
  def floats(args) do
    floats = args |> Enum.filter(&float?/1) |> List.to_tuple()

    put = fn floats ->
      {args, []} =
        Enum.map_reduce(args, Tuple.to_list(floats), fn arg, floats ->
          if float?(arg), do: {hd(floats), tl(floats)}, else: {arg, floats}
        end)

      args
    end

    {floats, put}
  end

  def float?(%Nx.Tensor{type: {kind, _}}), do: kind in [:f, :bf, :c]
  def float?(_arg), do: false

  # Weights keep one part from cancelling another. Nx has gradients of real parts only.
  defp weighted(result) do
    for tensor <- result |> List.wrap() |> Nx.Defn.Composite.flatten_list() do
      weights = Nx.iota(tensor.shape) |> Nx.multiply(7) |> Nx.remainder(5) |> Nx.divide(4)
      Nx.sum(Nx.multiply(Nx.real(tensor), weights))
    end
    |> Enum.reduce(&Nx.add/2)
  end
end

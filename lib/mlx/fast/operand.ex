defmodule Mlx.Fast.Operand do
  @moduledoc false

  # What the functions of `Mlx.Fast` ask of the tensors that they are given.

  alias Nx.Tensor, as: T

  @doc """
  The tensor without names and vectorized axes, and a function that gives them to a result of
  the same rank.
  """
  def plain(%T{vectorized_axes: axes, names: names} = tensor) do
    {tensor |> Nx.devectorize() |> nameless(),
     fn out -> out |> Nx.vectorize(axes) |> Nx.rename(names) end}
  end

  @doc """
  Tensors whose vectorized axes are part of their first axis, or are the first one without a
  `batch?`, and a function that gives them back to a result. Nothing but scalars that are not
  vectorized, and `nil`, stays as it is.
  """
  def batched([first | _] = tensors, batch?) do
    if Enum.all?(tensors, &(vectorized_axes(&1) == [])) do
      names = first.names
      {Enum.map(tensors, &(&1 && nameless(&1))), &Nx.rename(&1, names)}
    else
      flatten(tensors, batch?)
    end
  end

  defp flatten([%T{names: names} | _] = tensors, batch?) do
    {kept, vectors} = Enum.split_with(tensors, &(vectorized_axes(&1) == [] and scalar?(&1)))
    vectors = Nx.broadcast_vectors(vectors)
    [%T{vectorized_axes: axes, shape: shape} | _] = vectors
    vectors = for vector <- vectors, do: vector |> Nx.devectorize() |> nameless()
    count = length(axes)
    size = if batch?, do: elem(shape, 0), else: nil

    restore = fn out ->
      rest = out.shape |> Tuple.delete_at(0) |> Tuple.to_list()
      shape = Keyword.values(axes) ++ List.wrap(size) ++ rest
      out |> Nx.reshape(List.to_tuple(shape)) |> Nx.vectorize(axes) |> Nx.rename(names)
    end

    {rejoin(tensors, kept, Enum.map(vectors, &joined(&1, count, size))), restore}
  end

  defp vectorized_axes(nil), do: []
  defp vectorized_axes(tensor), do: tensor.vectorized_axes

  defp scalar?(nil), do: true
  defp scalar?(tensor), do: tensor.shape == {}

  defp rejoin([tensor | tensors], [tensor | kept], vectors),
    do: [tensor | rejoin(tensors, kept, vectors)]

  defp rejoin([_ | tensors], kept, [vector | vectors]),
    do: [vector | rejoin(tensors, kept, vectors)]

  defp rejoin([], [], []), do: []

  # The first `count` axes and the batch axis as one; an axis of size 1 is as long as the batch.
  defp joined(tensor, count, size) do
    {lead, rest} = tensor.shape |> Tuple.to_list() |> Enum.split(count)

    case {size, rest} do
      {nil, rest} ->
        Nx.reshape(tensor, List.to_tuple([Enum.product(lead) | rest]))

      {size, []} ->
        tensor |> Nx.new_axis(-1) |> widened(lead, size, [])

      {size, [_ | rest]} ->
        widened(tensor, lead, size, rest)
    end
  end

  defp widened(tensor, lead, size, rest) do
    tensor
    |> Nx.broadcast(List.to_tuple(lead ++ [size | rest]))
    |> Nx.reshape(List.to_tuple([Enum.product(lead) * size | rest]))
  end

  def nameless(%T{names: names} = tensor), do: %{tensor | names: Enum.map(names, fn _ -> nil end)}

  @doc """
  The float type that holds the numbers of all of the tensors, of which some may be `nil`.
  """
  def type!(function, tensors) do
    type =
      for(%T{type: type} <- tensors, do: type)
      |> Enum.reduce(&Nx.Type.merge/2)
      |> Nx.Type.to_floating()

    if Nx.Type.complex?(type),
      do: raise(ArgumentError, "Mlx.Fast.#{function} takes no complex numbers"),
      else: type
  end

  @doc """
  A tensor that belongs to the elements along the last axis of another, or `nil`.
  """
  def vector(_function, _name, nil, _size, _type), do: nil

  def vector(function, name, vector, size, type) do
    case unvectorized!(function, name, vector) do
      %T{shape: {^size}} -> vector |> nameless() |> Nx.as_type(type)
      %T{} -> refuse(function, "a #{name} of shape {#{size}}", vector)
    end
  end

  def tensor(nil), do: nil
  def tensor(tensor), do: Nx.to_tensor(tensor)

  def last(%T{shape: shape}), do: elem(shape, tuple_size(shape) - 1)

  @doc """
  A tensor with at least so many axes.
  """
  def ranked!(function, name, tensor, rank) do
    tensor = Nx.to_tensor(tensor)

    if tuple_size(tensor.shape) < rank,
      do: refuse(function, "#{name} with at least #{rank} axes", tensor),
      else: tensor
  end

  def unvectorized!(_function, _name, %T{vectorized_axes: []} = tensor), do: tensor

  def unvectorized!(function, name, _tensor),
    do: raise(ArgumentError, "Mlx.Fast.#{function} takes no vectorized #{name}")

  @doc """
  A position, or a length, or several of them: a number, or a tensor of integers.
  """
  def integers!(_function, _name, number)
      when is_integer(number) and number in -0x80000000..0x7FFFFFFF,
      do: number

  def integers!(function, name, %T{type: {kind, _}} = tensor) do
    if kind in [:s, :u], do: tensor, else: refuse(function, "integers as #{name}", tensor)
  end

  def integers!(function, name, other) do
    raise ArgumentError,
          "Mlx.Fast.#{function} takes an integer of 32 bits or a tensor as #{name}, " <>
            "got: #{inspect(other)}"
  end

  @spec refuse(atom, String.t(), Nx.Tensor.t()) :: no_return
  def refuse(function, wanted, %T{shape: shape, type: type}) do
    given = "#{Nx.Type.to_string(type)}#{inspect(shape)}"
    raise ArgumentError, "Mlx.Fast.#{function} takes #{wanted}, got: #{given}"
  end

  @doc """
  The value of an option that is a number.
  """
  def number!(function, opts, name) do
    case opts[name] do
      number when is_number(number) -> number
      other -> wrong_option(function, "a number", name, other)
    end
  end

  def boolean!(function, opts, name) do
    case opts[name] do
      boolean when is_boolean(boolean) -> boolean
      other -> wrong_option(function, "a boolean", name, other)
    end
  end

  @spec wrong_option(atom, String.t(), atom, term) :: no_return
  def wrong_option(function, wanted, name, value) do
    raise ArgumentError,
          "Mlx.Fast.#{function} takes #{wanted} as #{inspect(name)}, got: #{inspect(value)}"
  end

  @doc """
  The type that sums and quotients of a type are computed in.
  """
  def wide({_, 64} = type), do: type
  def wide(_type), do: {:f, 32}

  @doc """
  A number as a tensor. Numbers among operands are of less precision than `f64`.
  """
  def constant(number, type), do: Nx.tensor(number, type: type)

  @doc """
  Keeps what only moves others from having a gradient of its own.
  """
  def fixed(%T{data: %Nx.Defn.Expr{}} = tensor), do: Nx.Defn.Kernel.stop_grad(tensor)
  def fixed(tensor), do: tensor
end

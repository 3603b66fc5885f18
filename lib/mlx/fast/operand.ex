defmodule Mlx.Fast.Operand do
  @moduledoc false

  # What the functions of `Mlx.Fast` ask of the tensors that they are given.

  alias Nx.Tensor, as: T

  @doc """
  The tensor without names and vectorized axes, and a function that gives them to a result of
  the same rank.
  """
  def plain(%T{vectorized_axes: axes, names: names} = tensor) do
    tensor = Nx.devectorize(tensor)

    {nameless(tensor), fn out -> out |> Nx.vectorize(axes) |> Nx.rename(names) end}
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
  def vector(_function, _name, nil, _x, _type), do: nil

  def vector(function, name, vector, x, type) do
    case {unvectorized!(function, name, Nx.to_tensor(vector)), x.shape} do
      {%T{shape: {size}} = vector, shape} when elem(shape, tuple_size(shape) - 1) == size ->
        vector |> nameless() |> Nx.as_type(type)

      {vector, shape} ->
        refuse(function, "a #{name} of the size of the last axis of #{inspect(shape)}", vector)
    end
  end

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

  def refuse(function, wanted, %T{shape: shape, type: type}) do
    given = "#{Nx.Type.to_string(type)}#{inspect(shape)}"
    raise ArgumentError, "Mlx.Fast.#{function} takes #{wanted}, got: #{given}"
  end

  @doc """
  The value of an option that is a number.
  """
  def number!(function, opts, name) do
    case opts[name] do
      number when is_number(number) ->
        number

      other ->
        raise ArgumentError,
              "Mlx.Fast.#{function} takes a number as #{inspect(name)}, got: #{inspect(other)}"
    end
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
end

defmodule Mlx.DocDifferences do
  @moduledoc """
  The examples in Nx's documentation that Mlx doesn't print to the letter, and why.
  """

  import ExUnit.Assertions
  alias Mlx.{DocExamples, TestDevice}

  # How far apart the digits of an example may be, in units of the last place, by the
  # number of the example in the documentation of the function.
  @digits %{
    # Each library of elementary functions has its own last digit.
    {Nx, {:erfc, 1}} => %{2 => [ulps: 2]},
    {Nx, {:log1p, 1}} => %{2 => [ulps: 1]},
    {Nx, {:sin, 1}} => %{2 => [ulps: 2]},
    {Nx.Random, {:normal, 4}} => %{1 => [ulps: 1], 3 => [ulps: 2], 4 => [ulps: 2]},
    {Nx.Random, {:multivariate_normal, 4}} => %{2 => [ulps: 2], 4 => [ulps: 2]},
    # Sums of products are rounded in another order.
    {Nx.LinAlg, {:cholesky, 1}} => %{2 => [ulps: 8], 5 => [ulps: 8]},
    {Nx.LinAlg, {:determinant, 1}} => %{7 => [ulps: 1]},
    {Nx.LinAlg, {:lu, 1}} => %{3 => [ulps: 1]},
    {Nx.LinAlg, {:solve, 2}} => %{4 => [ulps: 5]},
    {Nx.LinAlg, {:svd, 2}} => %{2 => [ulps: 1]},
    # Errors of the last digit grow with the condition of the matrix, those of what is
    # printed, too: the true numbers are -110.375, 76.875, 92.25 and -64.25; 4, -1, -3
    # and 1; 1 and 0; 1 and -0.95; -1/18, 1/9 and 5/18.
    {Nx.LinAlg, {:matrix_power, 2}} => %{6 => [ulps: 35]},
    {Nx.LinAlg, {:pinv, 2}} => %{5 => [ulps: 150], 6 => [ulps: 1]},
    {Nx.LinAlg, {:least_squares, 3}} => %{
      1 => [ulps: 5, scale: 1.0],
      2 => [ulps: 5],
      3 => [ulps: 40]
    },
    # Of the second matrix two eigenvalues are equal, so that their vectors are not
    # unique; what they make up is.
    {Nx.LinAlg, {:eigh, 2}} => %{
      2 => [through: %{"eigenvecs" => :made_up_of}, ulps: 4, scale: 3.0],
      3 => [ulps: 2],
      4 => [ulps: 2]
    }
  }

  # Where Mlx says that it is different, and what it gives.
  @different %{
    # MLX has no c128.
    {Nx.Constants, {:i, 2}} => %{2 => [instead: :unsupported_type]},
    # Nobody waits for the result, so its reader learns of it.
    {Nx.LinAlg, {:triangular_solve, 3}} => %{15 => [instead: :singular]},
    # The container has a tensor in it, and the example compares references.
    {Nx.Defn.Composite, {:flatten_list, 2}} => %{2 => []}
  }

  @all Map.merge(@digits, @different)

  # Vectorized integers are compared by way of f64.
  @by_way_of_f64 [{Nx, {:all_close, 3}, 10}, {Nx, {:all_close, 3}, 11}]

  @doc """
  The options of `Mlx.DocExamples.check/2` by module and function, and the number of the
  example there. Functions are names.
  """
  def all, do: @all

  @doc """
  The functions whose examples are run one by one, as what they print is not to the letter what is
  printed on this device.
  """
  def apart, do: Enum.uniq(Map.keys(@all) ++ if(TestDevice.exact?(), do: [], else: inexact()))

  defp inexact do
    for module <- DocExamples.modules(),
        example <- DocExamples.examples(module),
        refused?(example) or DocExamples.floats?(example),
        do: {module, example.function}
  end

  @doc """
  The options for an example.
  """
  def options(%{module: module, function: function, number: number} = example) do
    options = get_in(@all, [{module, function}, number]) || []
    if refused?(example), do: [refused: true], else: Enum.map(options, &named/1)
  end

  defp refused?(%{module: module, function: function, number: number} = example) do
    not TestDevice.f64?() and
      (DocExamples.f64?(example) or {module, function, number} in @by_way_of_f64)
  end

  # Attributes can't hold these functions.
  defp named({:through, functions}) do
    {:through,
     Map.new(functions, fn {code, name} -> {code, &apply(__MODULE__, name, [&1, &2])} end)}
  end

  defp named({:instead, name}), do: {:instead, &apply(__MODULE__, name, [&1])}
  defp named(option), do: option

  def made_up_of(vectors, variables) do
    values = Nx.round(variables[:eigenvals])
    vectors |> Nx.multiply(values) |> Nx.dot(Nx.transpose(vectors))
  end

  def unsupported_type(step) do
    assert %Mlx.Error{kind: :type} = catch_error(step.())
  end

  def singular(step) do
    assert %Mlx.Error{kind: :value} = catch_error(Mlx.eval(step.()))
  end
end

import org.apache.spark.sql.SparkSession

object Count {
  def main(args: Array[String]): Unit = {
    val spark = SparkSession.builder().getOrCreate()
    println("total " + spark.range(args(0).toLong).count() + args(1))
    spark.stop()
  }
}
